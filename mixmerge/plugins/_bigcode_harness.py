"""Where bigcode-evaluation-harness is on this machine, what it knows, and how its main.py is run.

Nothing of it is imported here: it runs in processes of its own, under its own interpreter if it has one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mixmerge import SourceError, StepError

from .sft import end_with_parent

PLACE = "MIXMERGE_BIGCODE"
"""Environment variable: a clone of the harness, where a recipe names none."""
REPOSITORY = "https://github.com/bigcode-project/bigcode-evaluation-harness"

# Run by the harness' interpreter, in its folder. A class that does not say otherwise executes what the model wrote; to
# ask an instance would download its data.
_PROBE = """
import importlib.metadata, inspect, json, platform, re, sys
sys.path.insert(0, "")
from bigcode_eval.tasks import TASK_REGISTRY
harmless = re.compile(r"requires_execution\\s*(:\\s*bool\\s*)?=\\s*False")
sources = {name: inspect.getsource(inspect.getmodule(task)) for name, task in TASK_REGISTRY.items()}
executes = {name: not harmless.search(source) for name, source in sources.items()}
versions = {name: importlib.metadata.version(name) for name in ("accelerate", "datasets", "torch", "transformers")}
print("\\n" + json.dumps({"executes": executes, "versions": {"python": platform.python_version(), **versions}}))
"""

# what the evaluation of generated programs may know of its surroundings; no token, no key
_KEPT = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "JAVA_HOME", "XDG_CACHE_HOME")
_CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HUGGINGFACE_HUB_CACHE")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}

_NAMESPACES = ("--net", "--pid", "--ipc", "--fork", "--kill-child")
_LAYERS = ("no network", "processes of its own")


@dataclass(frozen=True)
class Harness:
    """A clone and the interpreter that runs it. `executes`: task to whether it runs what the model wrote."""

    folder: Path
    python: str
    executes: Mapping[str, bool]
    versions: Mapping[str, str]

    def generate(self, arguments: Sequence[str], processes: int) -> None:
        """main.py, with the model; in several processes by accelerate."""
        command = [self.python, "main.py"]
        if processes > 1:
            options = ["--num_processes", str(processes), "--num_machines", "1", "--dynamo_backend", "no"]
            command = [self.python, "-m", "accelerate.commands.launch", *options, "main.py"]
        _run([*command, *arguments], self.folder, {**os.environ, "TOKENIZERS_PARALLELISM": "false"}, "generation")

    def score(self, arguments: Sequence[str], executes: bool) -> None:
        """main.py, without a model; what is executed has no network and no secrets in its environment."""
        command = [self.python, "main.py", *arguments]
        if not executes:
            _run(command, self.folder, os.environ, "scoring")
            return
        prefix, layers = isolation()
        with tempfile.TemporaryDirectory(prefix="mixmerge-bigcode-") as scratch:
            environment = {name: os.environ[name] for name in (*_KEPT, *_CACHES) if name in os.environ}
            environment |= {"TMPDIR": scratch, **(_OFFLINE if layers else {})}  # multiple-* would count old results
            _run([*prefix, *command], self.folder, environment, "scoring")

    def digest(self) -> str:
        """sha256 of its code and few-shot prompts."""
        files = [self.folder / "main.py"]
        for file in sorted((self.folder / "bigcode_eval").rglob("*")):
            downloaded = file.relative_to(self.folder).parts[1:3] == ("tasks", "ds")
            if file.suffix in (".py", ".json") and not downloaded:
                files.append(file)
        digest = hashlib.sha256()
        for file in files:
            digest.update(str(file.relative_to(self.folder)).encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.hexdigest()


def find(path: str | None, python: str | None) -> Harness:
    """The harness in `path`, else in $MIXMERGE_BIGCODE, else where `bigcode_eval` is imported from.

    Raises SourceError where it is not, or where the interpreter lacks what it needs.
    """
    folder = _folder(path)
    found = _probe(folder, python or sys.executable)
    return Harness(folder, python or sys.executable, found["executes"], found["versions"])


def _folder(path: str | None) -> Path:
    given = path or os.environ.get(PLACE) or None
    hint = f"git clone {REPOSITORY}, then name its folder: `path: FOLDER`, or {PLACE}=FOLDER in the environment"
    if given is None:
        spec = importlib.util.find_spec("bigcode_eval")
        if spec is None or spec.origin is None:
            raise SourceError("bigcode: bigcode-evaluation-harness is not installed here", hint=hint)
        folder = Path(spec.origin).parent.parent
    else:
        folder = Path(given).expanduser().absolute()
    missing = [name for name in ("main.py", "bigcode_eval/tasks/__init__.py") if not (folder / name).is_file()]
    if missing:
        raise SourceError(f"bigcode: {folder} is no clone of the harness, it has no {missing[0]}", hint=hint)
    return folder


@cache
def _probe(folder: Path, python: str) -> Any:
    if shutil.which(python) is None:
        raise SourceError(f"bigcode: {python} is no Python interpreter", hint="`python:` names the harness' own")
    done = subprocess.run([python, "-c", _PROBE], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        needs = f"{python} -m pip install -r {folder / 'requirements.txt'}"
        hint = f"{needs}; or `python:` names an interpreter that has what it needs"
        raise SourceError(f"bigcode: the harness in {folder} does not start: {said}", hint=hint)
    return json.loads(done.stdout.splitlines()[-1])


@cache
def isolation() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A command that runs another one apart, as far as this machine lets us (it is tried), and what that holds."""
    for extra in (("--user", "--map-current-user", "--mount-proc"), ("--user", "--map-root-user"), ("--mount-proc",)):
        prefix = ("unshare", *extra, *_NAMESPACES, "--")
        with contextlib.suppress(OSError):
            if subprocess.run([*prefix, "true"], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0:
                return prefix, _LAYERS
    return (), ()


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str], what: str) -> None:
    """Run it to its end, its output in our log; nothing of it outlives us."""
    guarded = [sys.executable, "-m", __name__, str(os.getpid()), *command]
    with _group(guarded, folder, environment) as process:
        code = process.wait()
    if code:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        hint = "the log holds what it said; data sets that it fetches need the network or a filled cache"
        raise StepError(f"bigcode: the harness' {what} ended with {how}", hint=hint)


@contextlib.contextmanager
def _group(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
