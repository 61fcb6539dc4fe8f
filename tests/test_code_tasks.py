"""The tasks of the paper's recipes: they load lazily, ask what training asks, and judge as EvalPlus does."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixmerge import SourceError
from mixmerge.plugins.lm_eval import pins
from mixmerge.sandbox import Outcome
from mixmerge.sources import DataSpec, load_rows

ROOT = Path(__file__).parent.parent
NAMES = ["mm_humaneval_plus", "mm_mbpp_plus", "mm_mbpp_dev", "mm_code2text_python", "mm_code2text_python_dev"]
RECIPES = ["deepseek1.3b", "deepseek7b", "qwen1.5b", "qwen7b", "qwen14b"]
GENERATIONS = {"humaneval_plus": "mistral-7b-instruct-v0.2", "mbpp_plus": "llama3-base-dpo"}


def utils(folder: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{folder}_paper_utils", ROOT / "tasks" / folder / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EVALPLUS = utils("mm_evalplus")
CODE2TEXT = utils("mm_code2text")


@pytest.fixture
def local_data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXMERGE_DATA", str(data_dir))
    return data_dir


@pytest.fixture(autouse=True)
def fresh_problems() -> Iterator[None]:
    yield
    EVALPLUS._problems.cache_clear()


def manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(ROOT / "tasks"), include_defaults=False)


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def recorded(data_dir: Path, name: str) -> dict[str, dict[str, Any]]:
    text = (data_dir / "generations" / name / f"{GENERATIONS[name]}.json").read_text(encoding="utf-8")
    return {id: answers[0] for id, answers in json.loads(text)["eval"].items()}


def test_tasks_are_known_and_pinned_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    assert set(NAMES) <= set(manager().all_tasks)
    assert set(pins(NAMES, {})) >= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_is_one_clear_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    with pytest.raises(SourceError, match="there is no file") as error:
        manager().load([name])
    assert "$MIXMERGE_DATA" in error.value.hint
    assert "hub" in error.value.hint


def test_another_version_of_the_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    path = tmp_path / "mbpp_plus" / "MbppPlus.jsonl.gz"
    path.parent.mkdir()
    with gzip.open(path, "wt") as file:
        file.write('{"task_id": "Mbpp/2"}\n')
    with pytest.raises(SourceError, match="not as expected"):
        EVALPLUS.problems.load("mbpp_plus")


def test_tasks_load_and_ask(local_data: Path) -> None:
    tasks = manager().load(NAMES)["tasks"]
    assert [len(tasks[name].eval_docs) for name in NAMES] == [164, 378, 50, 790, 200]
    for name in NAMES:
        assert tasks[name].config.metadata["primary"] in tasks[name].higher_is_better()
    task = tasks["mm_mbpp_plus"]
    asked = task.fewshot_context(task.eval_docs[0], num_fewshot=0, gen_prefix=task.doc_to_prefix(task.eval_docs[0]))
    assert asked.startswith("Please provide a self-contained Python script")
    assert "assert set(similar_elements((3, 4, 5, 6),(5, 7, 4, 10))) == set((4, 5))" in asked
    assert asked.endswith("passes corresponding tests:\n```python")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_train_on_what_the_task_asks(name: str, local_data: Path) -> None:
    entry = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text())["data"]["sum"]
    assert (entry["source"], entry["subset"]) == (f"hf:{CODE2TEXT.HUB}", "python")
    assert (entry["prompt"], entry["answer"]) == (CODE2TEXT.PROMPT, CODE2TEXT.ANSWER)
    file = str(local_data / "code2text" / "python" / "test.jsonl.gz")
    trained = load_rows(DataSpec(file, entry["prompt"], entry["answer"], limit=20), CODE2TEXT.SEED).rows
    assert list(trained) == list(CODE2TEXT.rows("python", dev=True)[:20])


def test_functions_to_choose_on_are_not_in_the_test(local_data: Path) -> None:
    dev, test = (CODE2TEXT.rows("python", dev) for dev in (True, False))
    assert not {row["id"] for row in dev} & {row["id"] for row in test}
    assert len({row["id"] for row in [*dev, *test]}) == 990


def test_summaries_come_out_of_fences_and_quotes() -> None:
    for response in (
        "Add two\nnumbers.\n\nMore.",
        '"""Add two numbers."""',
        '```python\n"""\nAdd two numbers.\n"""\n```',
    ):
        assert CODE2TEXT.summary_of(response) == "Add two numbers."
    perfect = CODE2TEXT.scores({"completion": "Add two numbers."}, ["Add two numbers."])
    assert perfect["rouge_l"] == pytest.approx(100)
    assert perfect["rouge_l@constant sentence"] < 20


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_the_hubs_format_gives_the_same_problems(name: str, step: int, local_data: Path) -> None:
    """The hub's rows hold inputs as Python literals: an independent check of the types that ours have."""
    problems = EVALPLUS.problems
    file = {"humaneval_plus": "HumanEvalPlus", "mbpp_plus": "MbppPlus"}[name]
    read = {"humaneval_plus": problems._humaneval_plus, "mbpp_plus": problems._mbpp_plus}[name]
    own = problems.load(name)
    hub = rows(local_data / name / f"{file}-OriginFmt.jsonl.gz")
    assert len(own) == len(hub)
    for ours, theirs in zip(own[::step], read(hub[::step]), strict=True):
        for field in ("id", "prompt", "entry_point", "reference", "atol"):
            assert getattr(ours, field) == getattr(theirs, field), ours.id
        # written out, since 1 == 1.0 == True; but the two formats differ in the sign of a complex zero
        written = repr if ours.id not in ("Mbpp/124", "Mbpp/252") else lambda call: call
        # the hub's rows name each input once
        base, every = (list(dict.fromkeys(map(written, calls))) for calls in (ours.base, ours.base + ours.plus))
        same = base == [*map(written, theirs.base)] and every == [*map(written, theirs.base + theirs.plus)]
        assert same, ours.id


def test_validation_problems_are_not_in_mbpp_plus(local_data: Path) -> None:
    plus = {int(row["task_id"].removeprefix("Mbpp/")) for row in rows(local_data / "mbpp_plus" / "MbppPlus.jsonl.gz")}
    assert plus & set(range(511, 601)) == EVALPLUS.problems.MBPP_PLUS_IN_VALIDATION
    dev = {int(problem.id.removeprefix("Mbpp/")) for problem in EVALPLUS.problems.load("mbpp_dev")}
    assert dev == set(range(511, 601)) - plus - {533}  # whose asserts hold types, no literals


def test_references_of_the_validation_problems_pass(local_data: Path) -> None:
    docs = list(EVALPLUS.mbpp_dev()["test"])
    judged = EVALPLUS.judge([[doc["reference"], "\ndef f(): pass"] for doc in docs], docs)
    assert [answer[0]["base"] for answer in judged] == [True] * 50
    assert [EVALPLUS.pass_at_1(doc, [answer]) for doc, answer in zip(docs, judged, strict=True)] == [
        {"pass@1": 0.5}
    ] * 50


def compared(name: str, expected: object, given: object, *, atol: float = 0.0, call: tuple[Any, ...] = (1, 2)) -> bool:
    problem = EVALPLUS.problems.Problem("T/0", "", name, "", base=(call,), atol=atol)
    outcome = Outcome("ok", (given,), "", ())
    return bool(EVALPLUS.compare.passes(problem, problem.base, outcome, (expected,)))


def test_comparison_rules_by_hand() -> None:
    assert compared("f", 1, 1.0)
    assert compared("f", [1, (2,)], [1, (2,)])
    assert not compared("f", [1], (1,))
    assert compared("f", 1.0, 1.0 + 5e-7)  # a float is expected: a tolerance of 1e-6
    assert not compared("f", 1.0, 1.0 + 5e-6)
    assert compared("f", 1.0, 1.0 + 5e-5, atol=1e-4)
    assert not compared("f", (1.0, 2.0), [1.0, 2.0 + 1e-8])  # near, of another type
    assert not compared("f", [1.0], [1.0 + 1e-8, 2.0])
    assert not compared("f", "a", None)
    assert compared("similar_elements", (4, 5), [5, 4, 4])
    assert not compared("similar_elements", (4, 5), [[4], [5]])
    assert compared("check_str", True, "anything")
    assert not compared("check_str", True, None)
    assert not compared("check_str", True, False)
    assert compared("are_equivalent", True, False)
    assert compared("sum_div", 7, 0)
    assert not compared("sum_div", 7, 1)
    assert compared("surface_Area", 33, 35, call=(3, 4))  # 9 + 6 * sqrt(1.5 ** 2 + 4 ** 2) = 34.63, rounded
    assert not compared("surface_Area", 33, 34, call=(3, 4))
    assert compared("digit_distance_nums", 9, 1 + 1, call=(1, 10))
    assert not compared("digit_distance_nums", 9, 3, call=(1, 10))
    assert compared("find_zero", 1.0, 2.0, atol=1e-4, call=([-6, 1, 1],))  # x² + x - 6
    assert not compared("find_zero", 2.0, 3.0, atol=1e-4, call=([-6, 1, 1],))


def test_tolerance_once_set_stays() -> None:
    """Two complex numbers that nearly agree pass only after a float was expected: they set no tolerance themselves."""
    problem = EVALPLUS.problems.Problem("T/0", "", "f", "", base=((1,), (2,)))
    for first, passed in [(1.0, True), (1, False)]:
        outcome = Outcome("ok", (first, 2 + 1e-7j), "", ())
        assert EVALPLUS.compare.passes(problem, problem.base, outcome, (first, 2 + 0j)) is passed


def test_program_is_taken_out_of_a_response() -> None:
    response = (
        "\nimport math\nLIMIT = 3\nUNUSED = f(2)\n\ndef f(x):\n    return g(x) + LIMIT\n\ndef g(x): return x\n"
        "assert f(1) == 5\n```\nDone."
    )
    found = EVALPLUS.extract_program(response, "f")
    assert found.split("\n")[:2] == ["import math", "LIMIT = 3"]
    assert "UNUSED" not in found
    assert "assert" not in found
    scope: dict[str, Any] = {}
    exec(found, scope)
    assert scope["f"](1) == 4
    assert EVALPLUS.extract_program("\n```python\ndef f(): return 1\n```", "f") == "def f():\n    return 1"
    assert EVALPLUS.extract_program("def f(): return 1\nprint(f(", "f") == "def f():\n    return 1"
    assert EVALPLUS.extract_program("no program", "f") == ""


def test_large_values_are_compared_as_hashes() -> None:
    problem = EVALPLUS.problems.Problem("T/large", "", "f", "def f(n): return [1] * n", base=((20_000,),), plus=((3,),))
    codes = ["def f(n): return [1.0] * n", "def f(n): return (1,) * n", "def f(n): return [1] * (n - 1) + [2]"]
    assert [(v["base"], v["plus"]) for v in EVALPLUS.verdicts([problem] * 3, codes)] == [
        (True, True),
        (False, False),
        (False, False),
    ]


SAMPLE = 40  # every 40th problem in the quick run


def agreement(data_dir: Path, name: str, step: int) -> dict[str, list[str]]:
    """Ids by kind of disagreement with EvalPlus' recorded verdicts, and of references that fail."""
    slow = EVALPLUS.SLOW if step > 1 else ()
    answers = recorded(data_dir, name)
    problems = [problem for problem in EVALPLUS.problems.load(name)[::step] if problem.id not in slow]
    codes = [EVALPLUS.extract_program(answers[problem.id]["solution"], problem.entry_point) for problem in problems]
    both = EVALPLUS.verdicts([*problems, *problems], [*(problem.reference for problem in problems), *codes])
    found: dict[str, list[str]] = {"reference": [], "base": [], "plus": []}
    for problem, reference, ours in zip(problems, both, both[len(problems) :], strict=False):
        if not (reference["base"] and reference["plus"]):
            found["reference"].append(problem.id)
        for kind in ("base", "plus"):
            if ours[kind] != (answers[problem.id][f"{kind}_status"] == "pass"):
                found[kind].append(problem.id)
    return found


@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_some_verdicts_agree_with_evalplus(name: str, local_data: Path) -> None:
    assert agreement(local_data, name, SAMPLE) == {"reference": [], "base": [], "plus": []}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_all_verdicts_agree_with_evalplus(name: str, local_data: Path) -> None:
    found = agreement(local_data, name, 1)
    # right but slow: there one call took longer than EvalPlus gives it; here all of them may take ten seconds
    assert set(found.pop("base")) <= {"Mbpp/123"}
    assert found == {"reference": [], "plus": []}


def test_lm_eval_judges_through_the_filter(local_data: Path) -> None:
    task = manager().load(["mm_humaneval_plus"])["tasks"]["mm_humaneval_plus"]
    task.build_all_requests(limit=2, rank=0, world_size=1)
    answers = [task.eval_docs[0]["reference"] + "\n```\nDone.", "\ndef truncate_number(number): return 0.5"]
    for instance in task.instances:
        instance.resps = [answers[instance.doc_id]]
    task.apply_filters()
    found = [task.process_results(each.doc, [each.filtered_resps["executed"]]) for each in task.instances]
    assert found == [{"pass@1": 1.0, "base_pass@1": 1.0}, {"pass@1": 0.0, "base_pass@1": 0.0}]
