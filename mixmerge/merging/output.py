"""A prepared merge is written, with its configuration and a model card, or only estimated."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from .. import checkpoint
from ..card import write_card
from ..errors import CheckpointError
from .binding import Merge
from .config import MergeFile


@dataclass(frozen=True)
class Estimate:
    """Of one merge: bytes read and written, the memory over the interpreter at its peak, seconds on one core."""

    bytes_read: int
    bytes_written: int
    peak_bytes: int
    seconds: float


_NS = {
    "linear": 2,
    "task_arithmetic": 3,
    "ties": 14,
    "dare_linear": 9,
    "dare_ties": 12,
    "della": 18,
    "della_linear": 15,
}
"""Nanoseconds for a value of an expert, as benchmarks/sweep.py took on a busy 2.x GHz core; 60 for mergekit's code."""


def estimate(merge: Merge) -> Estimate:
    """From the headers alone."""
    derivation = merge.model.derivation
    assert derivation is not None
    layouts = [checkpoint.inspect(model.path) for model in (derivation.base, *derivation.experts)]
    written = sum(entry.bytes for entry in checkpoint.plan(merge.model, merge.dtype).values())
    sizes = [
        sum(layout.tensors[name].bytes for layout in layouts if name in layout.tensors) for name in layouts[0].names
    ]
    # What is held of one tensor, its masks at a bit for each value, and some parts.
    peak = min(max(sizes), checkpoint.HELD_BYTES) + max(sizes) // 16 + (100 << 20)
    values = sum(math.prod(info.shape) for info in layouts[0].tensors.values()) * len(derivation.experts)
    reading = sum(layout.bytes for layout in layouts)
    seconds = values * _NS.get(derivation.method, 60) * 1e-9 + (reading + written) / 1e9
    return Estimate(reading, written, peak, seconds)


def write(merge: Merge, file: MergeFile, out: Path, *, threads: int | None = None) -> str:
    """Write the merge with its configuration beside it, whole or not at all; returns its digest."""
    from .. import __version__

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists already", hint="give a new directory")
    folder = out.with_name(f".{out.name}.merge")
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt that was killed
    try:
        digest = checkpoint.write_many([merge.model], [folder], dtype=merge.dtype, threads=threads)[0]
        how = f"mixmerge {__version__}: mixmerge merge {file.path.name} OUT {merge.options}"
        (folder / "mergekit_config.yml").write_text(f"# by {how}\n{file.path.read_text('utf-8')}", "utf-8")
        if merge.tokenizer:
            _set_tokenizer(folder, Path(merge.tokenizer.name))
        if file.chat_template:
            _set_template(folder, file.chat_template)
        _write_card(merge, file, folder, digest, how)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return digest


def _write_card(merge: Merge, file: MergeFile, folder: Path, digest: str, how: str) -> None:
    told = [f"Merged by {how}", "", *(f"- {line}" for line in merge.lines)]
    told += ["", "The configuration is in `mergekit_config.yml`."]
    base, files = merge.model.path, ("config.json", "tokenizer.json", "chat_template.jinja")
    same = [name for name in files if _bytes(folder / name) and _bytes(folder / name) == _bytes(base / name)]
    whose = merge.model.derivation.base.name if merge.model.derivation else "the base"
    kept = f"Of {whose}, unchanged: {', '.join(same) or 'neither config nor tokenizer'}."
    write_card(merge.model, folder, digest, told, kept)


def _bytes(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _set_tokenizer(folder: Path, tokenizer: Path) -> None:
    """One vocabulary's tokenizer in the place of the base's; the config counts its tokens."""
    patterns = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
    for file in {file for pattern in patterns for file in folder.glob(pattern)}:
        file.unlink()
    for file in tokenizer.iterdir():
        shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["vocab_size"] = len(checkpoint.tokenizer_vocabulary(tokenizer))
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _set_template(folder: Path, text: str) -> None:
    """The configuration's own template, in the place of the base's."""
    (folder / "chat_template.jinja").write_text(text, "utf-8")
    config = folder / "tokenizer_config.json"
    if config.is_file() and "chat_template" in (settings := json.loads(config.read_text("utf-8"))):
        del settings["chat_template"]
        config.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")
