"""Runs the suite in a process of its own: `python -m adversarial.stage SETTINGS.json`; the report is a file of JSON.

It makes the things that attacks are after (secrets, a victim, listening sockets), judges every attack with an honest
program right behind it, and then looks for what was left behind or was touched.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import json
import math
import os
import platform
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import forging, harming, honest, host, replying, stealing
from .program import Attack, Form, Honest, Problem

ATTACKS: tuple[Attack, ...] = (*forging.ATTACKS, *stealing.ATTACKS, *replying.ATTACKS, *harming.ATTACKS)
HONEST: tuple[Honest, ...] = tuple(honest.PROGRAMS)
NUMPY = importlib.util.find_spec("numpy") is not None
LIMITS = {"cpu_s": 1.0, "idle_s": 2.0}  # of attacks: shorter than the usual ones, since many use all of it
USUAL = {"cpu_s": 3.0, "idle_s": None}

# what the candidate after an attack finds: nothing of the one before
HOUSE = """
import builtins, os, random, sys, tempfile, threading
def f(writes):
    found = [hasattr(builtins, "patched"), hasattr(sys, "patched"), "PATCHED" in os.environ, len([1, 2]), "/nowhere" in sys.path]
    found += [threading.active_count(), os.listdir("."), round(random.random(), 6)]
    if writes:
        with tempfile.NamedTemporaryFile("w+") as h:
            h.write("x" * 100_000); h.flush(); h.seek(0)
            found.append(len(h.read()))
        found.append(oct(os.stat(os.path.realpath(".")).st_mode & 0o700))
    return found
"""
HOUSE_FINDS = [False, False, False, 2, False, 1, [], 0.844422]  # random.seed(0), as the sandbox promises
HOUSE_WRITES = [100_000, "0o700"]


# -- the scene -----------------------------------------------------------------------------------------------------


class Scene:
    """What attacks are after, in a folder of this user's own, and how it was before."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, f"mark{secrets.token_hex(6)}"
        # in the environment that the process began with, where /proc shows it
        self.token = os.environ.get("SECRET_TOKEN", f"secret-{secrets.token_hex(8)}").removeprefix("secret-")
        self.victim, self.home, self.temporary = folder / "victim", folder / "home", folder / "tmp"
        for place in (self.victim, self.home, self.temporary, self.victim / "empty", self.victim / "locked"):
            place.mkdir()
        (self.victim / "victim").write_text("before")
        (self.victim / "locked" / "inner").write_text("before")
        (self.victim / "locked").chmod(0o500)
        answers = [json.dumps({"task": n, "answer": f"answer-{self.token}-{n}"}) for n in (1, 2)]
        (folder / "data.jsonl").write_text("\n".join(answers))
        (folder / "secret.txt").write_text(f"secret-{self.token}")
        (self.home / "token").write_text(f"secret-{self.token}")
        (self.home / "token").chmod(0o600)
        os.environ.update(SECRET_TOKEN=f"secret-{self.token}", HOME=str(self.home), TMPDIR=str(self.temporary))
        os.chdir(folder)
        self.sockets = self._listen()
        self.texts = self._texts()
        self.before = self.state()

    def _listen(self) -> dict[str, socket.socket]:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        found = {"tcp": tcp, "udp": udp}
        for kind, number in (("stream", socket.SOCK_STREAM), ("datagram", socket.SOCK_DGRAM)):
            for name, address in ((f"{kind} path", str(self.folder / kind)), (f"{kind} name", f"\0{self.mark}{kind}")):
                found[name] = socket.socket(socket.AF_UNIX, number)
                found[name].bind(address)
                if kind == "stream":
                    found[name].listen()
        for one in found.values():
            one.setblocking(False)
        return found

    def _texts(self) -> dict[str, str]:
        import mixmerge

        package = Path(str(mixmerge.__file__)).parent
        spec = importlib.util.find_spec("numpy")
        packages = Path(spec.origin).parents[1] if spec and spec.origin else package.parent
        return {
            "@TOKEN@": self.token,
            "@MARK@": self.mark,
            "@DATASET@": str(self.folder / "data.jsonl"),
            "@SECRET_FILE@": str(self.folder / "secret.txt"),
            "@PRIVATE_FILE@": str(self.home / "token"),
            "@FOLDER@": str(self.folder),
            "@HOME@": str(self.home),
            "@VICTIM@": str(self.victim),
            "@PACKAGE@": str(package),
            "@PACKAGES@": str(packages),
            "@HARNESS@": str(os.getpid()),
            "@PORT@": str(self.sockets["tcp"].getsockname()[1]),
            "@UDP@": str(self.sockets["udp"].getsockname()[1]),
            "@SOCKET@": str(self.folder / "stream"),
            "@ABSTRACT@": f"{self.mark}stream",
        }

    def fill(self, value: Any) -> Any:
        """`value` with its placeholders filled in."""
        if isinstance(value, str):
            for name, text in self.texts.items():
                value = value.replace(name, text)
            return value
        if isinstance(value, (tuple, list)):
            return type(value)(self.fill(entry) for entry in value)
        return value

    def state(self) -> dict[str, Any]:
        """What no candidate may change."""
        files = {str(path): (path.lstat().st_mode, path.lstat().st_mtime) for path in sorted(self.victim.rglob("*"))}
        limits = [
            resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)
        ]
        shared = [Path(f"/proc/sysvipc/{name}") for name in ("shm", "msg", "sem")]
        return {
            "victim": [(self.victim / "victim").read_text(), files],
            "limits": limits,
            "priority": os.getpriority(os.PRIO_PROCESS, 0),
            "processors": sorted(os.sched_getaffinity(0)),
            "segments": [len(path.read_text().splitlines()) for path in shared if path.exists()],
            "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        }

    def left(self) -> dict[str, Any]:
        """What was left behind or touched; empty values where all is well."""
        places = [
            "/tmp",
            "/var/tmp",
            "/dev/shm",
            "/",
            "/run",
            self.folder,
            self.home,
            self.victim,
            self.texts["@PACKAGE@"],
        ]
        after = self.state()
        return {
            "processes": _wait_for_end(),
            "temporary files": sorted(str(path) for path in self.temporary.rglob("*")),
            "files outside": [
                str(path) for place in places if Path(place).is_dir() for path in _marked(place, self.mark)
            ],
            "contacts": [name for name, one in self.sockets.items() if _touched(one)],
            "changes": {key: (value, after[key]) for key, value in self.before.items() if after[key] != value},
        }


def _marked(place: str | Path, mark: str) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from Path(place).glob(f"{mark}*")


def _touched(one: socket.socket) -> bool:
    try:
        if one.type == socket.SOCK_STREAM:
            one.accept()
        else:
            one.recv(100)
    except BlockingIOError:
        return False
    return True


def descendants() -> dict[int, str]:
    """Every process below this one that has not ended, however it tried to leave, and how it calls itself."""
    parents: dict[int, tuple[int, str, str]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            head, _, rest = (entry / "stat").read_text().rpartition(")")
            state, parent = rest.split()[:2]
            parents[int(entry.name)] = (int(parent), state, head.partition("(")[2])
    found: dict[int, str] = {}
    wanted = {os.getpid()}
    while wanted:
        below = {pid for pid, (parent, _, _) in parents.items() if parent in wanted}
        found |= {pid: f"{parents[pid][2]} ({parents[pid][1]})" for pid in below if parents[pid][1] != "Z"}
        wanted = below
    return found


def _wait_for_end(within_s: float = 2.0) -> dict[int, str]:
    """What is still there after a moment."""
    end = time.monotonic() + within_s
    while (found := descendants()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


# -- the jobs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """One job: which program, in which form."""

    name: str
    form: str
    code: str
    problem: Problem
    limits: dict[str, Any]
    test: Form | None = None

    def job(self, fill: Callable[[Any], Any]) -> Any:
        from mixmerge.sandbox import Cases, Job, Limits, Tests, pack

        limits = Limits(**{**LIMITS, **self.limits})
        against: Cases | Tests
        if self.test is None:
            expected = fill(self.problem.expected)
            times = [limits.cpu_s] * len(expected)
            against = pack(
                fill(self.problem.calls), expected, times, like_evalplus(expected) if self.form == "agrees" else None
            )
        else:
            against = Tests(fill(self.test.test), fill(self.test.prompt), self.test.check)
        return Job(fill(self.code), self.problem.entry_point, against, limits)


def like_evalplus(expected: Sequence[Any]) -> Callable[[int, object], bool]:
    """EvalPlus' comparison in short: equal, or floats that are close."""

    def agrees(index: int, value: Any) -> bool:
        wanted = expected[index]
        if value == wanted:
            return True
        if isinstance(wanted, float):
            return math.isclose(value, wanted, rel_tol=1e-7, abs_tol=1e-6)
        floats = isinstance(wanted, (list, tuple)) and all(isinstance(entry, float) for entry in wanted)
        return (
            floats
            and type(value) is type(wanted)
            and len(value) == len(wanted)
            and all(map(math.isclose, value, wanted))
        )

    return agrees


def asked(program: Attack | Honest, *, answers: bool = False) -> list[Asked]:
    """Every form of a program; with `answers`, of one that knows its problem's answers."""
    problem = program.problem
    code = problem.right() if answers else program.code
    limits = USUAL if answers or isinstance(program, Honest) else {}
    if not answers:
        limits = {**limits, **program.limits}
    make = lambda form, test=None: Asked(program.name, form, code, problem, limits, test)  # noqa: E731
    found = [make("data")] if problem.data else []
    if problem.data and problem.tests is None and isinstance(program, Attack):
        found.append(make("agrees"))
    forms = problem.forms()
    if isinstance(program, Honest):
        forms.pop("plus", None)  # it says no more than the others, of an honest program
    return found + [make(name, test) for name, test in forms.items() if NUMPY or not test.numpy]


def _house(writes: bool) -> Asked:
    expected = [HOUSE_FINDS + (HOUSE_WRITES if writes else [])]
    return Asked("the next candidate", "data", HOUSE, Problem(calls=((writes,),), expected=tuple(expected)), USUAL)


def chosen(programs: Sequence[Any], settings: dict[str, Any], level: int) -> list[Any]:
    only = settings.get("only")
    return [
        one
        for one in programs
        if (one.name in only if only else settings["slow"] or not one.slow)
        and one.name not in settings.get("but", ())
        and one.level <= level
        and (NUMPY or not one.numpy)
        and getattr(one, "machine", "") in ("", platform.machine())
    ]


# -- what is run ---------------------------------------------------------------------------------------------------


def judged(settings: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """Attacks, each with the next candidate's find of the world behind it; then what is left."""
    from mixmerge.sandbox import isolation, judge

    level = isolation().level
    programs = chosen(ATTACKS if settings["what"] == "attacks" else HONEST, settings, level)
    every: list[Asked] = []
    for program in programs:
        forms = asked(program)
        # where this is not the first condition, the two forms that differ most say enough
        every += forms if settings["forms"] == "all" else [forms[0], *forms[max(1, len(forms) - 1) :]]
        if settings["what"] == "attacks":
            every.append(_house(level > 1))
    jobs = [one.job(scene.fill) for one in every]
    memory = _memory_mb()
    begin = time.monotonic()
    verdicts = judge(jobs, workers=settings["workers"])
    seconds = time.monotonic() - begin
    rows = [
        {
            "name": one.name,
            "form": one.form,
            "status": verdict.status,
            "detail": verdict.detail,
            "cpu_s": verdict.cpu_s,
            "by": verdict.by,
        }
        for one, verdict in zip(every, verdicts, strict=True)
    ]
    return {
        "verdicts": rows,
        "seconds": seconds,
        "memory_mb": _memory_mb() - memory,
        "names": [one.name for one in programs],
    }


def answered(settings: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """Programs that know the answers of every attack's problem: all must pass."""
    from mixmerge.sandbox import isolation, judge

    every = [one for attack in chosen(ATTACKS, settings, isolation().level) for one in asked(attack, answers=True)]
    unique = {(one.form, repr(one.problem)): one for one in every}
    verdicts = judge([one.job(scene.fill) for one in unique.values()], workers=settings["workers"])
    rows = [
        {"name": one.name, "form": one.form, "status": verdict.status, "detail": verdict.detail}
        for one, verdict in zip(unique.values(), verdicts, strict=True)
    ]
    return {"verdicts": rows}


def crowded(settings: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """More workers than processors, programs that use a third of their limit: time is the candidate's, not the clock's."""
    code = "import time\ndef f(x):\n    end = time.process_time() + 1\n    while time.process_time() < end: pass\n    return x\n"
    problem = Problem(calls=((3,),), expected=(3,))
    every = [Asked("one second", "data", code, problem, USUAL)] * 4
    every += [Asked("one second", "asserts", code, problem, USUAL, Form("assert f(3) == 3"))] * 4
    from mixmerge.sandbox import judge

    verdicts = judge([one.job(scene.fill) for one in every], workers=8)
    return {
        "verdicts": [
            {"name": "one second", "form": one.by, "status": one.status, "detail": one.detail} for one in verdicts
        ]
    }


def values(settings: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """Hostile programs through `run_programs`: the honest ones between them give their values, and no call raises."""
    from mixmerge.sandbox import Limits, Program, isolation, run_programs

    programs = [one for one in chosen(ATTACKS, settings, isolation().level) if one.problem.data]
    # what only a limit of its own stops does no harm under the usual ones
    programs = [one for one in programs if not {"memory_mb", "file_mb"} & one.limits.keys()]
    good = Program("def f(x):\n    return x + 1", "f", ((1,), (41,)))
    every = [Program(scene.fill(one.code), "f", scene.fill(one.problem.calls)) for one in programs]
    outcomes = run_programs(
        [part for one in every for part in (one, good)], limits=Limits(cpu_s=0.5, idle_s=1), workers=settings["workers"]
    )
    kept = {}
    for program, outcome in zip(programs, outcomes[::2], strict=True):
        with contextlib.suppress(Exception):  # an answer with a number too long to print is no answer
            kept[program.name] = [outcome.status, any(map(_is, outcome.outputs, scene.fill(program.problem.expected)))]
    return {"outcomes": kept, "honest": [list(outcome.outputs) for outcome in outcomes[1::2]]}


def _is(value: object, expected: object) -> bool:
    return bool(type(value) is type(expected) and value == expected)


# the candidate sleeps; it spins; it is stopped; the checker is what spins; a thread keeps its descriptors open
KILLED = {
    "a sleeper": ("import time\ndef f(): time.sleep(1000)\n", None),
    "a spinner": ("def f():\n    while True: pass\n", None),
    "a stopped one": ("import os, signal\ndef f(): os.kill(os.getpid(), signal.SIGSTOP)\n", None),
    "a sleeper in a test": ("import time\ndef f(): time.sleep(1000)\n", "assert f() == 1"),
    "a checker that spins": ("def f(): return range(10 ** 12)\n", "assert sum(f()) == 1"),
    "a checker that sleeps": ("def f(): return 1000\n", "import time\ntime.sleep(f())"),
}


def killed(settings: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """A harness that is killed while it judges: what is left of it a moment later."""
    found: dict[str, Any] = {}
    for name in KILLED:
        inner = {**settings, "what": "doomed", "name": name, "report": str(scene.folder / "doomed.json"), "refused": []}
        path = scene.folder / "doomed settings.json"
        path.write_text(json.dumps(inner))
        process = subprocess.Popen([sys.executable, "-m", "adversarial.stage", str(path)], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while len(descendants()) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.7)  # a fork server, a candidate, and for tests a checker are at work now
        begun = len(descendants())
        process.send_signal(signal.SIGKILL)
        process.wait()
        found[name] = [begun, _wait_for_end()]
        for pid in found[name][1]:
            os.kill(pid, signal.SIGKILL)
    # files of a harness that was killed stay, as any program's would: the system clears those away
    for path in sorted(scene.temporary.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return {"killed": found}


def doomed(settings: dict[str, Any], scene: Scene | None) -> dict[str, Any]:
    from mixmerge.sandbox import Job, Limits, Tests, judge, pack

    code, test = KILLED[settings["name"]]
    against = pack([()], [1], [100.0]) if test is None else Tests(test)
    judge([Job(code, "f", against, Limits(cpu_s=100, idle_s=100))] * 2, workers=2)
    return {}


def raised(settings: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """What judge() does where the host isolates nothing."""
    from mixmerge.sandbox import judge, run_programs

    found = []
    for function in (judge, run_programs):
        one = (
            asked(HONEST[0])[0].job(scene.fill)
            if function is judge
            else __import__("mixmerge.sandbox").sandbox.Program("", "f", ())
        )
        try:
            found.append(repr(function([one])))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return {"raised": found}


RUNS: dict[str, Callable[[dict[str, Any], Scene], dict[str, Any]]] = {
    "attacks": judged,
    "honest": judged,
    "answers": answered,
    "crowd": crowded,
    "values": values,
    "killed": killed,
    "refusal": raised,
}


def _memory_mb() -> int:
    """The most that this process has used so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(path: str) -> None:
    settings = json.loads(Path(path).read_text())
    host.refuse(tuple(settings["refused"]))  # before there is a thread: a new user namespace wants none
    faulthandler.dump_traceback_later(settings["patience_s"], exit=True)
    if settings["what"] == "doomed":
        doomed(settings, None)
        return
    host.adopt_orphans()
    scene = Scene(Path(settings["folder"]))
    from mixmerge.sandbox import isolation

    held = isolation()
    scene.before = scene.state()  # what was imported for it may keep descriptors
    report = RUNS[settings["what"]](settings, scene)
    report |= {"left": scene.left(), "level": held.level, "layers": held.layers, "uid": os.getuid(), "numpy": NUMPY}
    Path(settings["report"]).write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
