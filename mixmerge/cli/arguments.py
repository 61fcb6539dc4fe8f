"""What every verb takes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ..errors import suggest
from . import looking, models, recipes

EPILOG = """\
start here:  mixmerge recipe quickstart                   train, merge, score and report on a small real model
             mixmerge check RECIPE; mixmerge plan RECIPE  what is wrong with it; what it would do
"""


class _Parser(argparse.ArgumentParser):
    """Says what was probably meant; 2 is the exit status of wrong usage."""

    def error(self, message: str, hint: str = "") -> NoReturn:
        if wrong := re.search(r"VERB: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            verbs = set(re.findall(r"[a-z]+", wrong[2])) - {"worker"}
            message, hint = f"there is no verb {wrong[1]!r}", suggest(wrong[1], verbs)
        told = f"error: {message}" + (f"\n  hint: {hint}" if hint else "")
        self.exit(2, f"{told}\n{self.format_usage()}")


def refuse(parser: _Parser, unknown: Sequence[str]) -> NoReturn:
    from difflib import get_close_matches

    known = re.findall(r"--[a-z-]+", parser.format_help())
    close = get_close_matches(unknown[0].partition("=")[0], known, 1)
    parser.error(f"unknown argument {unknown[0]!r}", f"did you mean {close[0]!r}?" if close else "")


def make_parser() -> _Parser:
    parser = _Parser(
        prog="mixmerge",
        description="Fine-tune once on mixed data, or merge one expert per task? One recipe runs the whole experiment.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mixmerge {_version()}")
    parser.add_argument(
        "-p",
        "--plugin",
        dest="plugins",
        action="append",
        default=[],
        metavar="FILE|MODULE|no:NAME",
        help="load a plugin, or leave one out; may be given again",
    )
    parser.set_defaults(verb=lambda _: parser.print_help(), parser=parser)
    verbs = parser.add_subparsers(metavar="VERB")
    add = partial(_verb, verbs)
    _recipes(add)
    _models(add)
    _looking(add)
    worker = verbs.add_parser("worker")  # started by executors; not for people
    worker.set_defaults(verb=looking.worker)
    worker.add_argument("store", type=Path)
    return parser


Add = Callable[..., argparse.ArgumentParser]


def _verb(
    verbs: Any, verb: Callable[[argparse.Namespace], int], about: str, *, recipe: bool = False, js: bool = False
) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = verbs.add_parser(verb.__name__, help=about, description=about)
    one.set_defaults(verb=verb, parser=one)
    one.add_argument("-p", "--plugin", dest="more_plugins", action="append", default=[], help=argparse.SUPPRESS)
    if recipe:
        one.add_argument(
            "recipe", type=Path, metavar="FILE", help="a recipe, or the name of one in recipes/, such as quickstart"
        )
        _runs(one)
    if js:
        one.add_argument("--json", action="store_true", help="print JSON")
    return one


def _runs(one: argparse.ArgumentParser) -> None:
    one.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where runs are (default: runs)")


def _isolation(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--require-isolation",
        type=int,
        choices=range(1, 4),
        metavar="N",
        help="refuse to run generated programs below this level of isolation (1 to 3; see `mixmerge doctor`)",
    )
    one.add_argument(
        "--allow-unsandboxed", action="store_true", help="run them even where nothing keeps them from this host"
    )


def _recipes(add: Add) -> None:
    run = add(recipes.recipe, "run a recipe; a second call resumes, and ends at once when all is done", recipe=True)
    run.add_argument(
        "--executor", default="local", metavar="USE", help="local, ray, or 'local: {workers: 2, threads: 1}'"
    )
    _isolation(run)
    about = "say what a recipe or a merge would do, and the disk and memory it needs"
    plan = add(recipes.plan, about, recipe=True, js=True)
    plan.add_argument("--compat", action="store_true", help="of a mergekit YAML: with mergekit's own code")
    plan.epilog = (
        "A step is done, to do, failed, or begun: a run is in it, or was stopped in it and goes on from there."
    )
    add(recipes.check, "validate a recipe; every problem at once", recipe=True)
    add(recipes.report, "print the results so far", recipe=True, js=True)
    versus = add(recipes.compare, "compare what two recipes or runs both scored, paired over samples", js=True)
    for one, name in (("first", "A"), ("second", "B")):
        about = "a recipe, or the folder of a run; FILE#NAME for one experiment of recorded results"
        versus.add_argument(one, metavar=name, help=about)
    _runs(versus)


def _models(add: Add) -> None:
    merge = add(models.merge, "merge as a mergekit YAML says", js=True)
    merge.add_argument("config", type=Path, metavar="CONFIG.yml", help="a mergekit configuration")
    merge.add_argument("out", type=Path, metavar="OUT", help="the directory that will hold the merged model")
    how = merge.add_mutually_exclusive_group()
    how.add_argument("--compat", action="store_true", help="mergekit's own bits, with its code and its masks")
    how.add_argument("--mergekit", action="store_true", help="let mergekit itself do all of it")
    merge.add_argument("--seed", type=int, default=0, metavar="N", help="of random masks (default: 0)")
    merge.add_argument("--threads", type=_at_least_one, metavar="N", help="parts at a time; the weights stay the same")
    score = add(models.score, "score what any system generated on a task, without a model", js=True)
    score.add_argument("task", metavar="TASK", help="such as mm_humaneval_plus; `mixmerge tasks` lists them")
    score.add_argument(
        "samples",
        type=Path,
        metavar="SAMPLES",
        help="a .jsonl(.gz) with task_id and solution or completion, or with id and output; EvalPlus' "
        "eval_results.json or folder; lm-eval's samples_TASK.jsonl; or ID<TAB>OUTPUT, or an output, a line",
    )
    score.add_argument("--data", type=Path, metavar="FILE", help="the problems, instead of the task's own")
    score.add_argument(
        "--out", type=Path, metavar="FILE", help="where results go (default: SAMPLES.eval_results.json, as EvalPlus)"
    )
    score.add_argument("--workers", type=_at_least_one, metavar="N", help="processes (default: one for each CPU)")
    score.add_argument(
        "--sanitize",
        action="store_true",
        help="score only the program in a solution or completion, or the summary in an output, not the talk around it",
    )
    _isolation(score)
    look = add(models.diagnose, "say what the weights of models tell, without a recipe", js=True)
    look.add_argument("base", metavar="BASE", help="the model that the others were trained from: a directory, hf:…")
    look.add_argument("experts", nargs="+", metavar="EXPERT", help="models that were trained from it, or merged")
    look.add_argument(
        "--out", type=Path, metavar="DIR", help="write the curves over the layers (SVG), all numbers (CSV)"
    )
    look.add_argument(
        "-d",
        "--diagnostic",
        action="append",
        metavar="USE",
        help="such as l2 or 'spectrum: {rank: 32}'; may be given again (default: l2, correlation, changed, conflict)",
    )
    look.add_argument(
        "--same-task",
        nargs="+",
        action="append",
        default=[],
        metavar="EXPERT",
        help="experts that are runs of one task with different seeds: what their correlation is, others compare with",
    )


def _looking(add: Add) -> None:
    add(looking.plugins, "list the components of all plugins", js=True)
    tasks = add(looking.tasks, "list the tasks that come with mixmerge", js=True)
    tasks.add_argument("--path", action="store_true", help="print their folder, for `lm_eval run --include_path`")
    show = add(looking.show, "say what a name stands for: what it does and takes, or what became of it", js=True)
    show.add_argument(
        "name",
        metavar="NAME|ID",
        help="a component (ties), a task, `data` or a data source (mbpp), a model of a run (gen_expert, "
        "'ties 0.3/0.7'), or a step's id or how it begins",
    )
    _runs(show)
    add(looking.doctor, "say what this machine can do", js=True)


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _version() -> str:
    from .. import __version__

    return __version__
