"""The command line: thin verbs over the library. stdout is data, stderr is progress."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import MixmergeError, Problem, RecipeError, suggest

if TYPE_CHECKING:
    from .merging import Merge, MergeFile
    from .reading import Use
    from .recipe import Recipe
    from .registry import Registry
    from .store import Store

EPILOG = """\
start here:  mixmerge recipe quickstart                   train, merge, score and report on a small real model
             mixmerge check RECIPE; mixmerge plan RECIPE  what is wrong with it; what it would do
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status: 0 done, 1 an error that the user can mend, 2 wrong usage, 130 interrupted."""
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:
        _refuse(arguments.parser, unknown)
    arguments.plugins += getattr(arguments, "more_plugins", [])
    try:
        return int(arguments.verb(arguments) or 0)
    except MixmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    """Says what was probably meant; 2 is the exit status of wrong usage."""

    def error(self, message: str, hint: str = "") -> NoReturn:
        if wrong := re.search(r"VERB: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            verbs = set(re.findall(r"[a-z]+", wrong[2])) - {"worker"}
            message, hint = f"there is no verb {wrong[1]!r}", suggest(wrong[1], verbs)
        told = f"error: {message}" + (f"\n  hint: {hint}" if hint else "")
        self.exit(2, f"{told}\n{self.format_usage()}")


def _refuse(parser: _Parser, unknown: Sequence[str]) -> NoReturn:
    from difflib import get_close_matches

    known = re.findall(r"--[a-z-]+", parser.format_help())
    close = get_close_matches(unknown[0].partition("=")[0], known, 1)
    parser.error(f"unknown argument {unknown[0]!r}", f"did you mean {close[0]!r}?" if close else "")


def _parser() -> _Parser:
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

    def add(name: str, verb: Callable[..., Any], about: str, *, recipe: bool = False, js: bool = False) -> Any:
        one = verbs.add_parser(name, help=about, description=about)
        one.set_defaults(verb=verb, parser=one)
        one.add_argument("-p", "--plugin", dest="more_plugins", action="append", default=[], help=argparse.SUPPRESS)
        if recipe:
            one.add_argument(
                "recipe", type=Path, metavar="FILE", help="a recipe, or the name of one of ours: quickstart"
            )
            one.add_argument(
                "--out", type=Path, default=Path("runs"), metavar="DIR", help="where runs are (default: runs)"
            )
        if js:
            one.add_argument("--json", action="store_true", help="print JSON")
        return one

    run = add("recipe", _recipe, "run a recipe; a second call resumes, and ends at once when all is done", recipe=True)
    run.add_argument(
        "--executor", default="local", metavar="USE", help="local, ray, or 'local: {workers: 2, threads: 1}'"
    )
    plan = add(
        "plan", _plan, "say what a recipe or a merge would do, and the disk and memory it needs", recipe=True, js=True
    )
    plan.add_argument("--compat", action="store_true", help="of a mergekit YAML: with mergekit's own code")
    plan.epilog = (
        "A step is done, to do, failed, or begun: a run is in it, or was stopped in it and goes on from there."
    )
    merge = add("merge", _merge, "merge as a mergekit YAML says", js=True)
    merge.add_argument("config", type=Path, metavar="CONFIG.yml", help="a mergekit configuration")
    merge.add_argument("out", type=Path, metavar="OUT", help="the directory that will hold the merged model")
    how = merge.add_mutually_exclusive_group()
    how.add_argument("--compat", action="store_true", help="mergekit's own bits, with its code and its masks")
    how.add_argument("--mergekit", action="store_true", help="let mergekit itself do all of it")
    merge.add_argument("--seed", type=int, default=0, metavar="N", help="of random masks (default: 0)")
    merge.add_argument("--threads", type=_at_least_one, metavar="N", help="parts at a time; the weights stay the same")
    add("check", _check, "validate a recipe; every problem at once", recipe=True)
    add("report", _report, "print the results so far", recipe=True, js=True)
    versus = add("compare", _compare, "compare what two recipes or runs both scored, paired over samples", js=True)
    for one, name in (("first", "A"), ("second", "B")):
        about = "a recipe, or the folder of a run; FILE#NAME for one experiment of recorded results"
        versus.add_argument(one, metavar=name, help=about)
    versus.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where runs are (default: runs)")
    add("plugins", _plugins, "list the components of all plugins", js=True)
    tasks = add("tasks", _tasks, "list the tasks that come with mixmerge", js=True)
    tasks.add_argument("--path", action="store_true", help="print their folder, for `lm_eval run --include_path`")
    show = add("show", _show, "say what a name stands for: what it does and takes, or what became of it", js=True)
    show.add_argument(
        "name",
        metavar="NAME|ID",
        help="a component (ties), a task, `data` or a data source (mbpp), a model of a run (gen_expert, "
        "'ties 0.3/0.7'), or a step's id or how it begins",
    )
    show.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="where runs are (default: runs)")
    score = add("score", _score, "score what any system generated on a task, without a model", js=True)
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
    look = add("diagnose", _diagnose, "say what the weights of models tell, without a recipe", js=True)
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
    for one in (run, score):
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
    add("doctor", _doctor, "say what this machine can do", js=True)
    worker = verbs.add_parser("worker")  # started by executors; not for people
    worker.set_defaults(verb=_worker)
    worker.add_argument("store", type=Path)
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _version() -> str:
    from . import __version__

    return __version__


# -- recipes ----------------------------------------------------------------------------------------------------


def _load(arguments: argparse.Namespace) -> tuple[Recipe, Registry, Store]:
    from . import recipe
    from .paths import find_recipe
    from .registry import Registry
    from .store import Store

    registry = Registry(arguments.plugins)
    return recipe.load(find_recipe(arguments.recipe), registry), registry, Store(arguments.out / "store")


def _recipe(arguments: argparse.Namespace) -> int:
    from . import display, run

    _say_isolation(arguments)
    recipe, registry, store = _load(arguments)
    use = _use(registry, "executor", arguments.executor)
    command = run.worker_command(store, registry)
    shown = display.make()
    try:
        connect = partial(use.component.function, command, **use.parameters)
        outcome = run.run(recipe, registry, store, arguments.out / recipe.name, connect, shown)
    finally:
        shown.close()
    if not outcome.ran:
        print("nothing to do: every step is done", file=sys.stderr)
    for text in outcome.summary:
        print(text)
    if (models := arguments.out / recipe.name / "models").is_dir():
        print(f"models: {models}", file=sys.stderr)
    index = outcome.report / "index.html" if outcome.report else None
    print(index if index and index.is_file() else outcome.report or f"done: {arguments.out / recipe.name}")
    return 0


def _say_isolation(arguments: argparse.Namespace) -> None:
    """Into the environment, where workers find it, and where plain lm-eval says it."""
    if arguments.allow_unsandboxed:
        os.environ["MIXMERGE_ALLOW_UNSANDBOXED"] = "1"
    if arguments.require_isolation is not None:
        os.environ["MIXMERGE_REQUIRE_ISOLATION"] = str(arguments.require_isolation)


def _use(registry: Registry, kind: str, text: str) -> Use:
    """`name` or `name: {parameter: value}` as it stands on a command line."""
    import yaml

    from .reading import Use, name_and_parameters

    option = f"--{kind}"
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(
            [Problem(option, f"{text!r} is no YAML", f"such as '{kind}: {{parameter: value}}'")]
        ) from None
    name, given = name_and_parameters(text.strip() if value is None else value)
    if name is None:
        raise RecipeError([Problem(option, f"{text!r} is no {kind}", "write name or 'name: {parameter: value}'")])
    component = registry.get(kind, name)
    if problems := component.problems(given):
        raise RecipeError([Problem(option, what, hint) for _, what, hint in problems])
    return Use(component, component.complete(given))


def _check(arguments: argparse.Namespace) -> int:
    from .plan import build
    from .sources.spec import NAMES

    recipe, _, _ = _load(arguments)
    plan = build(recipe)
    print(f"{arguments.recipe}: good; {len(plan.runnable)} steps, {len(recipe.train)} trainings", end="")
    print(f", {sum(model.kind == 'merge' for model in plan.models)} merges")
    sources = [entry.source for entry in (recipe.base, *recipe.models.values())]
    sources += [spec.source for spec in recipe.data.values()]
    if any(source.startswith("hf:") or source in NAMES for source in sources):
        print("the hub is asked only when the recipe runs")
    if (
        recipe.advise
        and not recipe.recorded
        and (missing := [kind for kind in ("mixture", "merge") if kind not in {m.kind for m in plan.models}])
    ):
        hint = "train one, or name one under `models` with kind: mixture" if missing == ["mixture"] else "see `merge`"
        print(
            f"note: advice compares mixtures with merges, and the recipe has no {missing[0]}; {hint}", file=sys.stderr
        )
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    from . import merging
    from .plugins.mergekit import hand_over

    if arguments.mergekit:
        hand_over(arguments.config, arguments.out, arguments.seed)
        print(arguments.out)
        return 0
    file, merge = _merge_of(arguments)
    for line in merge.lines:
        print(line, file=sys.stderr)
    digest = merging.write(merge, file, arguments.out, threads=arguments.threads)
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "digest": digest, "does": merge.lines}, indent=1))
    else:
        print(arguments.out)
    return 0


def _merge_of(arguments: argparse.Namespace) -> tuple[MergeFile, Merge]:
    from . import merging
    from .plugins.mergekit import align_tokens, compat, parameters_of
    from .registry import Registry

    file = merging.read(arguments.config, parameters_of)
    exact, seed = getattr(arguments, "compat", False), getattr(arguments, "seed", 0)
    mergekit = merging.Mergekit(compat, align_tokens)
    return file, merging.prepare(file, Registry(arguments.plugins), mergekit, compat=exact, seed=seed)


def _plan_merge(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from . import merging
    from .display import size

    arguments.config = arguments.recipe
    _, merge = _merge_of(arguments)
    found = merging.estimate(merge)
    if arguments.json:
        print(json.dumps({"does": merge.lines, **asdict(found)}, indent=1))
        return 0
    print("\n".join(merge.lines))
    print(f"reads {size(found.bytes_read)}, writes {size(found.bytes_written)}")
    print(f"memory: about {size(found.peak_bytes)} over the interpreter; about {found.seconds:.0f} s on one core")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from . import merging
    from .display import size

    if merging.is_one(arguments.recipe):
        return _plan_merge(arguments)
    if arguments.compat:
        raise MixmergeError(f"{arguments.recipe}: --compat is for a mergekit YAML", hint="leave it out for a recipe")
    from .run import current_plan, estimate_bytes

    recipe, _, store = _load(arguments)
    plan = current_plan(recipe, store)
    missing = [step for step in plan.runnable if store.record(step.id) is None]
    needed = estimate_bytes(plan, missing, store) if missing else 0.0
    steps = [
        {"id": step.id, "kind": step.kind, "name": step.name, "state": store.state(step.id)} for step in plan.runnable
    ]
    if arguments.json:
        print(json.dumps({"steps": steps, "later": plan.later, "disk_bytes": needed}, indent=1))
        return 0
    for step in steps:
        print(f"{step['id']}  {step['state']:6}  {step['name']}")
    for text in plan.later:
        print(f"{'':16}  later   {text}")
    merges = sum(model.kind == "merge" for model in plan.models)
    print(f"{len(missing)} of {len(steps)} steps to do; {merges} merges, scored without being written")
    about = "unknown until the base is fetched" if needed is None else f"about {size(needed)}"
    print(f"disk needed: {about} (float32 checkpoints, and the optimizer's states while training)")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from .collect import collect
    from .run import current_plan, publish, summary

    recipe, _, store = _load(arguments)
    plan = current_plan(recipe, store)
    found = collect(plan.manifest, store)
    experiments = [(part.name, row) for part in found.parts for row in part.rows] or [("", row) for row in found.rows]
    if arguments.json:
        keys = (
            "model",
            "kind",
            "task",
            "metric",
            "value",
            "stderr",
            "n",
            "k",
            "higher_is_better",
            "settings",
            "record",
        )
        named = [({"experiment": name} if name else {}, row) for name, row in experiments]
        print(json.dumps([{**name, **{key: getattr(row, key) for key in keys}} for name, row in named], indent=1))
        return 0
    if not experiments:
        raise MixmergeError("there are no results yet", hint=f"mixmerge recipe {arguments.recipe}")
    width = max(len(row.model) for _, row in experiments)
    for name, row in experiments:
        if row.primary:
            error = f" ± {row.stderr:.4g}" if row.stderr is not None else ""
            about = f"{name}  {row.model}" if name else f"{row.model:{width}}"
            print(f"{about}  {row.kind:9}  {row.task}  {row.metric} {row.value:.4g}{error}  (n = {row.n})")
    said = list(summary(plan, store))
    if not said and found.rows:  # of the results so far, where no report has been made of them yet
        said = [use.component.function(found, **use.parameters).headline for use in recipe.advise]
    for text in said:
        print(text)
    if folder := publish(plan, store, arguments.out / recipe.name):
        print(folder / "index.html" if (folder / "index.html").is_file() else folder)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from . import versus
    from .registry import Registry
    from .results import across

    registry = Registry(arguments.plugins)
    a, b = (versus.load(text, registry, arguments.out) for text in (arguments.first, arguments.second))
    found = across(a, b)
    if arguments.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return 0
    for line in versus.lines(a, b, found):
        print(line)
    return 0


# -- looking around ---------------------------------------------------------------------------------------------


def _plugins(arguments: argparse.Namespace) -> int:
    from .registry import Registry

    found = [
        {"kind": c.kind, "name": c.name, "version": c.version, "plugin": c.plugin, "summary": c.summary}
        for c in Registry(arguments.plugins)
    ]
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    for one in found:
        print(f"{one['kind']:10}  {one['name']:16}  {one['summary']}  [{one['plugin']}]")
    return 0


def _tasks(arguments: argparse.Namespace) -> int:
    from .paths import tasks_folder
    from .registry import Registry

    if arguments.path:
        print(tasks_folder())
        return 0
    found = [
        {"name": name, "evaluator": component.name, "summary": summary}
        for component in Registry(arguments.plugins)
        if component.tasks
        for name, summary in component.tasks()
    ]
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    for one in found:
        print(f"{one['name']:32}  {one['summary']}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from . import show
    from .registry import Registry
    from .store import Store

    print(show.show(arguments.name, Registry(arguments.plugins), Store(arguments.out / "store"), js=arguments.json))
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from . import scoring

    _say_isolation(arguments)
    path = arguments.out or scoring.results_file(arguments.samples)
    writable = True
    try:
        scoring.require_writable(path)
    except MixmergeError as error:
        if arguments.out:
            raise
        writable = not arguments.samples.exists()  # then that is what is wrong
        if not writable:
            print(f"warning: results will only be printed: {error}", file=sys.stderr)
    scored = scoring.score(
        arguments.task,
        arguments.samples,
        data=arguments.data,
        workers=arguments.workers,
        sanitize=arguments.sanitize,
        progress=_counter("programs run"),
    )
    print(json.dumps(scored.summary) if arguments.json else "\n".join(scored.lines), flush=True)
    for note in scored.notes:
        print(f"note: {note}", file=sys.stderr)
    if writable:
        kept = scoring.write_results(scored, path)
        print(f"results: {path}" + (f" (what was there is now {kept.name})" if kept else ""), file=sys.stderr)
    return 0


def _diagnose(arguments: argparse.Namespace) -> int:
    from . import diagnosis
    from .registry import Registry

    registry = Registry(arguments.plugins)
    say = _counter("percent of the weights read")
    wanted = arguments.diagnostic or [*diagnosis.USUAL, *(["null"] if arguments.same_task else [])]
    found = diagnosis.diagnose(
        arguments.base,
        arguments.experts,
        [_use(registry, "diagnostic", text) for text in wanted],
        same_task=arguments.same_task,
        place=registry.place,
        progress=lambda done, total: say(100 * done // total, 100),
    )
    print(json.dumps(found.plain) if arguments.json else "\n".join(diagnosis.table(found)))
    if arguments.out:
        from .plugins.reporters.figures import layer_curves

        for path in diagnosis.write_figures(found, arguments.out, layer_curves):
            print(path, file=sys.stderr)
    return 0


def _counter(what: str) -> Callable[[int, int], None]:
    """Says how far something is, on stderr, every few seconds and at the end."""
    import time

    said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        if done == total or time.monotonic() - said > 5:
            said = time.monotonic()
            print(f"{done} of {total} {what}", file=sys.stderr)

    return say


def _doctor(arguments: argparse.Namespace) -> int:
    from .doctor import examine

    found = examine()
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    tried = found.pop("sandbox")
    for name, value in found.items():
        print(f"{name:14}  {', '.join(map(str, value)) if isinstance(value, list) else value}")
    print("a generated program in the sandbox, tried:" if isinstance(tried, list) else f"sandbox         {tried}")
    for one in tried if isinstance(tried, list) else []:
        print(f"  {'ok' if one['ok'] else '!!'}  {one['what']}" + (f"  ({one['how']})" if one["how"] else ""))
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    from . import work

    work.main(arguments.store, tuple(arguments.plugins))
    return 0
