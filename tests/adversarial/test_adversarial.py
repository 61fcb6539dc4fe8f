"""No attack passes, harms or stays; honest programs pass: as root, as an ordinary user, and with namespaces refused.

A stage runs a whole batch in a process of its own; each attack and each honest program is then a test that looks its
verdicts up. The suite as it is takes about a minute; `-m slow` asks for the rest.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from . import forging, host, naive, replying, stage, stealing
from .program import Attack, Honest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox is Linux only")

TESTS = Path(__file__).parents[1]
PACKAGE = Path(stage.__file__).parents[2] / "mixmerge"
USER = 61234
"""An ordinary user: one that nobody is."""
PATIENCE_S = 240.0
QUICK = [host.HERE, host.BOTH]
OTHERS = [host.USER, host.REFUSED, host.COUNTED, host.OLD]
CONDITIONS = [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)]
HOSTILE = [*forging.COMPARING, *forging.SHAPES, *stealing.ATTACKS, *replying.VALUES]
by_name = lambda one: one.name if hasattr(one, "name") else str(one)  # noqa: E731

_folders: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def no_folder_stays() -> Iterator[None]:
    yield
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


# -- a process that is what a condition says -----------------------------------------------------------------------


@cache
def readable_python() -> str | None:
    """An interpreter that every user can start: this one, or the system's."""
    own = [Path(sys.base_prefix).resolve(), Path(os.path.realpath(sys.executable))]
    if all(folder.stat().st_mode & 0o005 == 0o005 for place in own for folder in (place, *place.parents)):
        return os.path.realpath(sys.executable)
    return next((found for name in ("python3", "python3.13", "python3.12") if (found := _system(name))), None)


def _system(name: str) -> str | None:
    path = f"/usr/bin/{name}"
    if not Path(path).exists():
        return None
    done = subprocess.run(
        [path, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True
    )
    return path if done.stdout.strip() == "True" else None


@cache
def bundle() -> Path:
    """The sandbox and this suite where every user can read them; numpy too, if the interpreter can load it."""
    folder = _new_folder()
    (folder / "mixmerge").mkdir()
    (folder / "mixmerge" / "__init__.py").touch()
    shutil.copy(PACKAGE / "errors.py", folder / "mixmerge")
    shutil.copytree(PACKAGE / "sandbox", folder / "mixmerge" / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent, folder / "adversarial", ignore=shutil.ignore_patterns("__pycache__"))
    python, spec = readable_python(), importlib.util.find_spec("numpy")
    version = "import sys; print(sys.version_info[:2], sys.implementation.name, sys.abiflags)"
    versions = {
        subprocess.run([one, "-c", version], capture_output=True).stdout for one in (str(python), sys.executable)
    }
    if spec is not None and spec.origin is not None and len(versions) == 1:
        packages = Path(spec.origin).parents[1]
        for name in ("numpy", "numpy.libs"):
            if (packages / name).is_dir():
                shutil.copytree(packages / name, folder / name, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _new_folder() -> Path:
    # pytest's own folders are root's alone
    folder = Path(tempfile.mkdtemp(prefix="adversarial-")).resolve()
    _folders.append(folder)
    folder.chmod(0o755)
    return folder


def run(condition: host.Condition, what: str, **settings: Any) -> dict[str, Any]:
    """A stage's report. Skips, by name, where this host cannot be what the condition says."""
    if condition.user and os.geteuid() != 0 and condition is not host.USER and not condition.refused:
        pytest.skip("only root can become another user")
    other = condition.user and os.geteuid() == 0
    python = readable_python() if other else sys.executable
    if python is None:
        pytest.skip("no Python of 3.11 or later that an ordinary user can start")
    folder = _new_folder()
    report = folder / "report.json"
    path = folder / "settings.json"
    settings = {
        "what": what,
        "workers": 4,
        "slow": False,
        "forms": "all",
        "refused": condition.refused,
        "folder": str(folder),
        "report": str(report),
        "patience_s": PATIENCE_S,
        **settings,
    }
    path.write_text(json.dumps(settings))
    if other:
        os.chown(folder, USER, USER)
    modules = [str(bundle())] if other else [str(TESTS), str(PACKAGE.parent)]
    identity: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if other else {}
    done = subprocess.run(
        [python, "-m", "adversarial.stage", str(path)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(modules),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SECRET_TOKEN": f"secret-{secrets.token_hex(8)}",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        **identity,
    )
    assert report.exists(), f"the stage did not end well: {done.stderr[-4000:]}"
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["uid"] == (USER if other else os.geteuid())
    assert condition.least <= found["level"] <= condition.most, f"level {found['level']} is not what was prepared"
    return found


def report(condition: host.Condition, what: str) -> dict[str, Any]:
    """The report that many tests share; if there is none, they share why."""
    found = _tried(condition, what)
    if isinstance(found, BaseException):
        raise found
    return found


@cache
def _tried(condition: host.Condition, what: str) -> dict[str, Any] | BaseException:
    try:
        return run(condition, what, forms="all" if condition is host.HERE else "two")
    except (Exception, pytest.skip.Exception) as error:
        return error


def verdicts(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = [row for row in found["verdicts"] if row["name"] == name]
    if not rows:
        pytest.skip(f"not on this host: level {found['level']}, numpy {found['numpy']}")
    return rows


# -- attacks -------------------------------------------------------------------------------------------------------


def test_every_program_has_its_own_name() -> None:
    names = [program.name for program in (*stage.ATTACKS, *stage.HONEST)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("condition", CONDITIONS, ids=by_name)
@pytest.mark.parametrize("attack", [one for one in stage.ATTACKS if not one.slow], ids=by_name)
def test_no_attack_passes(attack: Attack, condition: host.Condition) -> None:
    for row in verdicts(report(condition, "attacks"), attack.name):
        assert row["status"] in attack.status, row


@pytest.mark.parametrize("condition", CONDITIONS, ids=by_name)
def test_the_next_candidate_finds_a_clean_world(condition: host.Condition) -> None:
    found = report(condition, "attacks")
    behind = zip(found["names"], verdicts(found, "the next candidate"), strict=True)
    assert [(name, row["detail"]) for name, row in behind if row["status"] != "pass"] == []


@pytest.mark.parametrize("condition", CONDITIONS, ids=by_name)
@pytest.mark.parametrize("kind", ["processes", "temporary files", "files outside", "contacts", "changes"])
def test_nothing_is_left_or_touched(kind: str, condition: host.Condition) -> None:
    assert not report(condition, "attacks")["left"][kind]


@pytest.mark.parametrize("condition", CONDITIONS, ids=by_name)
def test_the_harness_does_not_grow(condition: host.Condition) -> None:
    # the largest value that is looked at is a quarter of a megabyte; some attacks send gigabytes
    assert report(condition, "attacks")["memory_mb"] < 400


@pytest.mark.slow
@pytest.mark.parametrize("attack", [one for one in stage.ATTACKS if one.slow], ids=by_name)
def test_no_slow_attack_passes(attack: Attack) -> None:
    found = run(host.HERE, "attacks", only=[attack.name], slow=True)
    assert {row["status"] for row in verdicts(found, attack.name)} <= set(attack.status)
    assert not any(found["left"].values())


@pytest.mark.slow
@pytest.mark.parametrize("condition", [host.HERE, host.BOTH], ids=by_name)
def test_one_worker_for_all(condition: host.Condition) -> None:
    """Each attack and its next candidate in the very same fork server."""
    found = run(condition, "attacks", workers=1)
    passed = [row["name"] for row in found["verdicts"] if row["status"] == "pass"]
    assert set(passed) == {"the next candidate"}
    assert len(passed) == len(found["names"])
    assert not any(found["left"].values()), found["left"]


def test_a_program_that_knows_the_answers_passes() -> None:
    """Or the failures of the attacks would say nothing."""
    wrong = [row for row in report(host.HERE, "answers")["verdicts"] if row["status"] != "pass"]
    assert wrong == []


@cache
def fooled() -> dict[str, dict[str, bool]]:
    folder = _new_folder()
    token = {"SECRET_TOKEN": f"secret-{secrets.token_hex(8)}"}
    environment = {**os.environ, **token, "PYTHONPATH": os.pathsep.join([str(TESTS), str(PACKAGE.parent)])}
    subprocess.run([sys.executable, "-m", "adversarial.naive", str(folder)], check=True, env=environment, cwd=folder)
    found: dict[str, dict[str, bool]] = json.loads((folder / "report.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("attack", [one for one in stage.ATTACKS if one.fools], ids=by_name)
def test_an_attack_fools_a_naive_judge(attack: Attack) -> None:
    if attack.name not in fooled():
        pytest.skip("needs numpy")
    assert fooled()[attack.name] == dict.fromkeys(attack.fools, True)
    assert set(attack.fools) <= set(naive.JUDGES)


@pytest.mark.parametrize("condition", [host.HERE, pytest.param(host.BOTH, marks=pytest.mark.slow)], ids=by_name)
def test_values_of_hostile_programs(condition: host.Condition) -> None:
    """`run_programs` gives what honest programs return, whatever runs between them, and no hostile one knows answers."""
    found = run(condition, "values", only=[one.name for one in HOSTILE])
    assert found["honest"] == [[2, 42]] * len(found["honest"])
    assert [name for name, (_, right) in found["outcomes"].items() if right] == []
    assert not any(found["left"].values()), found["left"]


# -- honest programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", CONDITIONS, ids=by_name)
@pytest.mark.parametrize("program", stage.HONEST, ids=by_name)
def test_an_honest_program_passes(program: Honest, condition: host.Condition) -> None:
    for row in verdicts(report(condition, "honest"), program.name):
        assert row["status"] == "pass", row


def test_a_busy_machine_fails_nobody() -> None:
    """Eight workers, fewer processors, programs of one second with a limit of three."""
    assert {row["status"] for row in run(host.HERE, "crowd")["verdicts"]} == {"pass"}


# -- the harness itself --------------------------------------------------------------------------------------------


@cache
def killed(condition: host.Condition) -> dict[str, Any]:
    return run(condition, "killed")


@pytest.mark.parametrize(
    "condition", [host.HERE, host.BOTH, pytest.param(host.USER, marks=pytest.mark.slow)], ids=by_name
)
@pytest.mark.parametrize("doing", stage.KILLED)
def test_a_killed_harness_leaves_no_process(doing: str, condition: host.Condition) -> None:
    begun, left = killed(condition)["killed"][doing]
    assert begun >= 3, "it was not at work yet"
    assert left == {}


def test_without_any_isolation_it_refuses() -> None:
    found = run(host.NONE, "refusal")
    assert found["level"] == 0
    assert len(found["raised"]) == 2
    assert all(text.startswith("SandboxError") for text in found["raised"]), found["raised"]
