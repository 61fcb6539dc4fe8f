"""HumanEval(+), MBPP(+) and problems to choose on, as lm-eval tasks and for `mixmerge score`.

Prompts are EvalPlus' (arXiv 2305.01210; HumanEval+ v0.1.10, MBPP+ v0.2.0), in its two modes: a prompt to complete, or
a chat whose answer begins inside a fence. All answers of a task are judged together, in the sandbox, in the task's
filter; metrics only read the verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from mixmerge.paths import beside
from mixmerge.sandbox import isolation
from mixmerge.scoring import Request, Sample, Scored, attempts

problems = beside(__file__, "problems")
compare = beside(__file__, "compare")
extract = beside(__file__, "extract")
judging = beside(__file__, "judging")

INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)
KS = (1, 10, 100)
"""The k of pass@k, where a problem has as many samples."""

_set = cache(problems.load)


# -- lm-eval ----------------------------------------------------------------------------------------------------


def dataset(set: str, mode: str, **_: Any) -> dict[str, Any]:
    """The docs of a set, asked in a mode: `completion` or `chat`. Inputs stay out: they hold tuples, sets and complex
    numbers, and samples are logged."""
    from datasets import Dataset

    return {"test": Dataset.from_list([_doc(set, mode, problem) for problem in _set(set).problems.values()])}


def _doc(set: str, mode: str, problem: Any) -> dict[str, str]:
    prompt = problem.prompt.strip()
    return {
        "set": set,
        "mode": mode,
        "id": problem.id,
        "question": f"{INSTRUCTION}\n```\n{prompt}\n```\n" if mode == "chat" else f"{prompt}\n",
        "reference": problem.reference,
        "entry_point": problem.entry_point,
    }


def program(problem: Any, response: str) -> str:
    """The program in a model's answer; see `extract.extract_program`."""
    found: str = extract.extract_program(response, problem.prompt, problem.entry_point, problem.names)
    return found


def judge(responses: Sequence[Sequence[str]], docs: Sequence[Mapping[str, str]]) -> list[list[dict[str, Any]]]:
    """A filter of lm-eval: run every response of every doc, all together. Takes and gives one list for each doc.

    A verdict holds `base` and `plus` in EvalPlus' words (`plus`: whether the added tests alone pass), `detail` (why
    not), `by` (how it was reached) and `code`.
    """
    docs = list(docs)
    if not docs:
        return []
    found = _set(docs[0]["set"])
    pairs = [
        (doc["id"], program(found.problems[doc["id"]], response))
        for doc, answers in zip(docs, responses, strict=True)
        for response in answers
    ]
    told = judging.Judge(found, compare, [id for id, _ in pairs]).verdicts(pairs)
    verdicts = iter([_told(code, verdict) for (_, code), verdict in zip(pairs, told, strict=True)])
    return [[next(verdicts) for _ in answers] for answers in responses]


def _told(code: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    detail = next((each.detail for each in verdict.values() if each.detail), "")
    held = {"detail": detail, "by": verdict["base"].by, "isolation": isolation().level, "code": code}
    return {**{name: each.status for name, each in verdict.items()}, **held}


def plus_and_base(doc: Mapping[str, str], results: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """pass@k on all tests, and base_pass@k on the original set's alone, from the same answers."""
    return pass_at_k(doc, results) | {
        f"base_pass@{k}": value for k, value in _estimates([v["base"] == "pass" for v in results[0]]).items()
    }


def pass_at_k(doc: Mapping[str, str], results: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """The unbiased estimate for each k that there are enough answers for (with one answer: 0 or 1)."""
    return {f"pass@{k}": value for k, value in _estimates([_passed(verdict) for verdict in results[0]]).items()}


def _passed(verdict: Mapping[str, Any]) -> bool:
    return verdict["base"] == "pass" and verdict.get("plus", "pass") == "pass"


def _estimates(passed: Sequence[bool]) -> dict[int, float]:
    n, c = len(passed), sum(passed)
    return {k: estimate(n, c, k) for k in KS if k <= n}


def estimate(n: int, c: int, k: int) -> float:
    """pass@k from n answers of which c pass: the chance that one of k drawn without replacement passes (Codex paper,
    arXiv 2107.03374, equation 1)."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


# -- mixmerge score ---------------------------------------------------------------------------------------------


def score(request: Request, samples: Sequence[Sample]) -> Scored:
    """Score what any system generated: solutions as they stand, completions after their prompt, a model's raw answers
    through this task's extraction."""
    config = request.config["dataset_kwargs"]
    found = problems.load(config["set"], request.data)
    tried = attempts(samples, found.problems, _same_id)
    ids = [id for id, _ in tried]
    codes = [_code(found.problems[id], sample, request.sanitize) for id, sample in tried]
    judge = judging.Judge(found, compare, ids)
    verdicts = judge.verdicts(list(zip(ids, codes, strict=True)), request.workers, request.progress)
    grouped: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for id, code, verdict in zip(ids, codes, verdicts, strict=True):
        grouped.setdefault(id, []).append((code, verdict))
    summary = _summary(request.task, found, grouped)
    file = {
        "hash": found.digest,
        "eval": {id: [_result(found.problems[id], *each) for each in tries] for id, tries in grouped.items()},
        "pass_at_k": {
            kind: {name: value for name, value in summary[kind].items() if name.startswith("pass@")}
            for kind in ("base", "plus")
            if kind in summary
        },
        **{key: summary[key] for key in ("isolation", "limits", "verdict_by")},
    }
    notes = [] if request.sanitize else _notes(found, list(zip(ids, codes, strict=True)))
    return Scored(summary, _lines(request.task, summary), file, notes)


def _notes(found: Any, tried: Sequence[tuple[str, str]]) -> list[str]:
    """Where samples are no Python as they stand, but the first of them hold a program."""
    broken = [(id, code) for id, code in tried if not extract.is_python(code)]
    if not any(found.problems[id].entry_point in program(found.problems[id], code) for id, code in broken[:20]):
        return []
    what = "1 sample is" if len(broken) == 1 else f"{len(broken)} samples are"
    return [f"{what} no Python as {'it stands' if len(broken) == 1 else 'they stand'}; --sanitize looks for a program"]


def _same_id(id: str) -> str:
    """Ids as people write them: 11, "11", "mbpp/11" and "Mbpp/11" are one."""
    number = id.rpartition("/")[2]
    return f"Mbpp/{number}" if id.isdigit() or id.lower().startswith("mbpp/") else id


def _code(problem: Any, sample: Sample, sanitize: bool) -> str:
    if sample.kind == "answer":
        return program(problem, sample.text)
    whole = problem.prompt + sample.text if sample.kind == "completion" else sample.text
    return program(problem, whole) if sanitize else whole


Tries = Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]


def _summary(task: str, found: Any, grouped: Tries) -> dict[str, Any]:
    """What `--json` prints of a task; see `mixmerge score --help`."""
    passed = {id: [[_status(v, "base") == "pass" for _, v in tries]] for id, tries in grouped.items()}
    summary: dict[str, Any] = {
        "task": task,
        "n": sum(map(len, grouped.values())),
        "problems": len(grouped),
        "without_sample": len(found.problems) - len(grouped),
        "base": _rates([passed[id][0] for id in grouped]),
    }
    kinds = ["base"]
    if found.has_plus:
        kinds.append("plus")
        both = [[all(each.status == "pass" for each in v.values()) for _, v in tries] for tries in grouped.values()]
        summary["plus"] = _rates(both)
    summary["verdicts"] = {
        id: {kind: _one([_status(v, kind) for _, v in tries]) for kind in kinds} for id, tries in grouped.items()
    }
    summary["isolation"] = asdict(isolation())
    summary["limits"] = (
        {
            "call_s": f"max({judging.LEAST_S:g}, {judging.FACTOR:g} * reference)",
            "program_s": judging.WHOLE_S + 1,
            "memory_mb": judging.MEMORY_MB,
        }
        if any(not found.problems[id].test for id in grouped)
        else {"program_s": judging.TESTS.cpu_s, "memory_mb": judging.TESTS.memory_mb}
    )
    summary["verdict_by"] = "/".join(sorted({v["base"].by for tries in grouped.values() for _, v in tries}))
    return summary


def _status(verdict: Mapping[str, Any], kind: str) -> str:
    status: str = verdict[kind].status
    return status


def _one(statuses: list[str]) -> str | list[str]:
    return statuses[0] if len(statuses) == 1 else statuses


def _rates(passed: Sequence[Sequence[bool]]) -> dict[str, float]:
    """k of all samples, and the mean over problems of each pass@k that every problem has enough samples for."""
    least = min(map(len, passed))
    means = {
        f"pass@{k}": sum(estimate(len(each), sum(each), k) for each in passed) / len(passed) for k in KS if k <= least
    }
    return {"k": sum(map(sum, passed)), **means}


def _result(problem: Any, code: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A sample in EvalPlus' result format."""
    row: dict[str, Any] = {"task_id": problem.id, "solution": code, "base_status": verdict["base"].status}
    row["plus_status"] = verdict["plus"].status if "plus" in verdict else None
    for kind in ("base", "plus"):
        failed = verdict[kind] if kind in verdict and verdict[kind].status != "pass" else None
        calls = getattr(problem, kind)
        known = failed is not None and failed.detail.startswith("call ") and failed.passed < len(calls)
        row[f"{kind}_fail_tests"] = [_plain(calls[failed.passed])] if failed is not None and known else []
    return row


def _plain(value: Any) -> Any:
    """Arguments as JSON has them; sets become lists and complex numbers text, as EvalPlus writes them."""
    if isinstance(value, list | tuple | set):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return str(value) if isinstance(value, complex) else value


def _lines(task: str, summary: Mapping[str, Any]) -> list[str]:
    n = summary["n"]
    lines = []
    for kind in ("base", "plus"):
        if kind in summary:
            rates = {name: value for name, value in summary[kind].items() if name != "k"}
            shown = "  ".join(f"{name} {value:.4f}" for name, value in rates.items())
            of = f"  (mean over {summary['problems']} problems)" if summary["problems"] < n else ""
            lines.append(f"{task}  {kind}  {summary[kind]['k']} of {n}  {shown}{of}")
    if summary["without_sample"]:
        lines.append(f"{summary['without_sample']} problems have no sample and are not counted")
    return lines
