"""The sections of models, data and training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

from .. import checkpoint, sources
from ..errors import CheckpointError, SourceError, suggest
from ..reading import At, Reader, dotted, listed
from ..types import Kind
from .entries import ModelEntry, TrainEntry


class TrainingSections(Reader):
    """Reads what is trained or comes trained; the attributes are set before its entries are read."""

    sections: dict[str, Any]
    seed: int
    merged_experts: set[str]

    def section(self, name: str) -> dict[str, Any]:
        return self.mapping((name,), self.sections[name]) if name in self.sections else {}

    def each(self, section: str, read: Callable[[At, Any, dict[str, Any]], Any]) -> dict[str, Any]:
        """Every entry of a section, with the section's `defaults`."""
        entries = self.section(section)
        defaults = self.mapping((section, "defaults"), entries.pop("defaults", {}))
        for name in entries:
            if not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or name == "base":
                self.problem((section, name), f"{name!r} cannot be a name", "letters, digits, _ - . and not 'base'")
        return {name: read((section, name), entry, defaults) for name, entry in entries.items()}

    def model(self, at: At, entry: Any, kind: Kind, allowed: Sequence[str] | None = None) -> ModelEntry:
        allowed = allowed or ["model", "revision", "kind", "data"]
        given = {"model": entry} if isinstance(entry, str) else self.mapping(at, entry, allowed, ["model"])
        found = ModelEntry(
            self.value((*at, "model"), given.get("model", ""), str, ""),
            self.value((*at, "revision"), given.get("revision"), str | None, None),
            self.value(
                (*at, "kind"),
                given.get("kind", kind),
                Literal["expert", "mixture", "model"] if kind != "base" else Kind,
                kind,
            ),
            self.names((*at, "data"), given.get("data", []), None, "dataset"),
        )
        if found.source:
            try:
                path = sources.local_directory(found.source)
                if path and kind == "base" and sources.is_adapter(path):
                    what = f"{found.source} is a LoRA adapter, and a base is a whole model"
                    self.problem((*at, "model"), what, "give the model that it was trained on, and it under `models:`")
            except SourceError as error:
                self.problem((*at, "model"), error.message, error.hint)
        return found

    def fits(self, base: ModelEntry, models: Mapping[str, ModelEntry]) -> None:
        """Check what is on this machine already: whole, and aligned with the base. And that no model is given twice."""
        base_path = sources.local_directory(base.source)
        named: dict[tuple[str, str | None], str] = {}
        for name, entry in models.items():
            path = sources.local_directory(entry.source)
            first = named.setdefault((str(path.resolve()) if path else entry.source, entry.revision), name)
            if first != name:
                what = f"models.{name} is the same model as models.{first}: {entry.source}"
                self.problem(("models", name, "model"), what, "one of them was meant to be another")
        for at, entry in ((("base",), base), *((("models", name), entry) for name, entry in models.items())):
            path = sources.local_directory(entry.source)
            try:
                if path and sources.is_adapter(path):
                    if base_path:
                        checkpoint.check_adapter(path, checkpoint.inspect(base_path))
                elif path and base_path and path != base_path:
                    checkpoint.check_aligned(base_path, {str(at[-1]): path})
                elif path:
                    checkpoint.inspect(path)
            except CheckpointError as error:
                self.problem((*at, "model"), error.message, error.hint)

    def dataset(self, at: At, entry: Any, defaults: dict[str, Any]) -> sources.DataSpec | None:
        allowed = [spec.name for spec in fields(sources.DataSpec)]
        before = len(self.problems)
        given = self.mapping(at, {"source": entry} if isinstance(entry, str) else entry, allowed)
        given = {**defaults, **given}
        if "source" not in given and len(self.problems) == before:
            self.problem(at, f"{dotted(at)} needs 'source'", "such as hf:OWNER/NAME or a path")
        hints = _hints(sources.DataSpec)
        for key, value in given.items():
            self.value((*at, key), value, hints[key], None, sources.ALLOWED.get(key, ""))
        if len(self.problems) > before:
            return None
        spec = sources.DataSpec(**given)
        problems = sources.check_data(spec)
        for key, what, hint in problems:
            self.problem((*at, key) if key in given else (*at, "source"), what, hint)
        return None if problems else spec

    def experts_named(self) -> set[str]:
        """Every name that a merge lists under `experts`; `train` needs it to tell experts from mixtures."""
        entries = self.sections.get("merge")
        listed = (
            [entry.get("experts") for entry in entries.values() if isinstance(entry, dict)]
            if isinstance(entries, dict)
            else []
        )
        return {name for names in listed if isinstance(names, list) for name in names if isinstance(name, str)}

    def training(self, at: At, entry: Any, defaults: dict[str, Any], data: Mapping[str, Any]) -> TrainEntry | None:
        allowed = ["data", "unit", "fraction", "trainer", "seed", "kind"]
        given = self.mapping(at, entry, allowed)
        merged = {**defaults, **given}
        for key in ("data", "trainer"):
            if key not in merged:
                self.problem(at, f"{dotted(at)} needs {key!r}", listed(allowed))
        trainer = (
            self.use("trainer", (*at, "trainer"), merged["trainer"], defaults.get("trainer"))
            if ("trainer" in merged)
            else None
        )
        shares = self.shares((*at, "data"), merged.get("data", {}), data)
        kind = (
            "expert" if at[-1] in self.merged_experts or (not self.merged_experts and len(shares) == 1) else "mixture"
        )
        fraction = self.value((*at, "fraction"), merged.get("fraction", 1.0), float, 1.0)
        if not 0 < fraction <= 1:
            self.problem((*at, "fraction"), f"{dotted((*at, 'fraction'))} is {fraction}, not within (0, 1]")
        if trainer is None or not shares:
            return None
        return TrainEntry(
            shares,
            self.value((*at, "unit"), merged.get("unit", "examples"), Literal["examples", "tokens"], "examples"),
            fraction,
            trainer,
            self.value((*at, "seed"), merged.get("seed", self.seed), int, self.seed),
            self.value((*at, "kind"), merged.get("kind", kind), Literal["expert", "mixture"], kind),
        )

    def shares(self, at: At, value: Any, data: Mapping[str, Any]) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for name, share in self.mapping(at, value).items():
            if name not in data:
                self.problem((*at, name), f"no dataset is called {name!r}", suggest(name, data))
            if share == "all":
                found[name] = None
            elif isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1:
                found[name] = float(share)
            else:
                self.problem((*at, name), f"{dotted((*at, name))} is {share!r}", "allowed: all, or a share in (0, 1]")
        given = [share for share in found.values() if share is not None]
        if given and len(given) < len(found):
            self.problem(at, f"{dotted(at)} mixes `all` with shares", "give every dataset a share, or every one `all`")
        elif given and not math.isclose(sum(given), 1, abs_tol=1e-6):
            hint = "shares are parts of the mixture; for less data use `fraction`"
            self.problem(at, f"the shares of {dotted(at)} add up to {sum(given):g}, not 1", hint)
        return found


def _hints(cls: type) -> dict[str, Any]:
    import typing

    return typing.get_type_hints(cls, include_extras=True)
