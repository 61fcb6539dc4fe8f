"""Loads plugins and looks components up by name, or says what was probably meant.

Built-ins register through mixmerge's own entry points, so there is no special case for them.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from . import hookspecs
from .checkpoint import layer_of
from .components import KINDS, Component
from .errors import PluginError, suggest

_HOOK_OF = {kind: f"register_{kind[:-1]}ies" if kind.endswith("y") else f"register_{kind}s" for kind in KINDS}

_PLACE = re.compile(r"layer \d+|embeddings|head|norm|other")


class Registry:
    """All components of all loaded plugins. `get` looks one up; `hooks` calls the observers."""

    def __init__(self, plugins: Sequence[str] = ()) -> None:
        """`plugins`: what `-p` was given: a file, a module, or `no:NAME` to leave one out."""
        self.requested = tuple(plugins)
        self._manager = pluggy.PluginManager("mixmerge")
        self._manager.add_hookspecs(hookspecs)
        self._components: dict[tuple[str, str], Component] = {}
        self._code: dict[str, str] = {}
        blocked = {plugin.removeprefix("no:") for plugin in plugins if plugin.startswith("no:")}
        names = []
        for entry in sorted(importlib.metadata.entry_points(group="mixmerge"), key=lambda entry: entry.name):
            names.append(entry.name)
            if entry.name not in blocked:
                self._register(entry.name, _import(entry.name, entry.load, asked=False), edited=_lies_at_hand(entry))
        if unknown := sorted(blocked - set(names)):
            raise PluginError(f"no plugin is called {unknown[0]!r}", hint=suggest(unknown[0], names))
        for plugin in plugins:
            if not plugin.startswith("no:"):
                self._register(plugin, _import(plugin, partial(_load, plugin), asked=True), edited=True)
        self._collect()

    @property
    def hooks(self) -> Any:
        return self._manager.hook

    def get(self, kind: str, name: str) -> Component:
        """The component, or a PluginError with the name that was probably meant."""
        try:
            return self._components[kind, name]
        except KeyError:
            meant = suggest(name, self.names(kind))
            hint = f"{meant}{'' if meant.endswith('?') else ';'} one of a plugin of your own needs `-p FILE`"
            raise PluginError(f"no {kind} is called {name!r}", hint=hint) from None

    def place(self, tensor: str) -> str:
        """Where a tensor sits by its name: what a plugin's `place_tensor` says, else what mixmerge knows itself."""
        found = self.hooks.place_tensor(name=tensor)
        if found is not None and not _PLACE.fullmatch(str(found)):
            raise PluginError(
                f"a plugin's place_tensor puts {tensor} into {found!r}",
                hint="allowed: layer N, embeddings, head, norm, other; or None",
            )
        return found or layer_of(tensor)

    def names(self, kind: str) -> list[str]:
        return sorted(name for of, name in self._components if of == kind)

    def __iter__(self) -> Iterator[Component]:
        return iter(sorted(self._components.values(), key=lambda c: (KINDS.index(c.kind), c.name)))

    def _register(self, plugin: str, module: ModuleType, *, edited: bool) -> None:
        """`edited`: whether its source may change while its version stays, and so decides with it what a step is."""
        self._code[plugin] = _digest(module) if edited else ""
        try:
            self._manager.register(module, name=plugin)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            hooks = [name for name in vars(hookspecs) if name.startswith(("register_", "step_", "place_"))]
            wrong = next((name for name in _marked(module) if name not in hooks), "")
            what = f"{wrong!r} is no hook" if wrong else str(error).split("\n", 1)[0]
            raise PluginError(f"plugin {plugin!r}: {what}", hint=suggest(wrong, hooks)) from None
        except ValueError:
            raise PluginError(f"plugin {plugin!r} is loaded twice", hint="leave one `-p` out") from None
        if not _marked(module):
            raise PluginError(f"plugin {plugin!r} registers nothing", hint="decorate its hooks with @hookimpl")

    def _collect(self) -> None:
        for kind, hook in _HOOK_OF.items():
            for implementation in getattr(self.hooks, hook).get_hookimpls():
                for component in implementation.function():
                    self._add(kind, component, implementation.plugin_name)

    def _add(self, kind: str, component: object, plugin: str) -> None:
        if not isinstance(component, Component) or component.kind != kind:
            raise PluginError(
                f"plugin {plugin!r}: {_HOOK_OF[kind]} returned {component!r}",
                hint=f"decorate the function with @{kind}(name=…, version=…)",
            )
        if taken := self._components.get((kind, component.name)):
            raise PluginError(
                f"plugin {plugin!r}: the {kind} name {component.name!r} is taken by plugin {taken.plugin!r}",
                hint=f"rename it, or leave the other out with -p no:{taken.plugin}",
            )
        object.__setattr__(component, "plugin", plugin)
        object.__setattr__(component, "code", self._code[plugin])
        self._components[kind, component.name] = component


def _marked(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if hasattr(value, "mixmerge_impl")]


def _lies_at_hand(entry: importlib.metadata.EntryPoint) -> bool:
    """Whether a plugin was installed from a folder (PEP 610) rather than from an index. Not so ours."""
    if entry.dist is None or entry.module.startswith("mixmerge."):
        return False
    return entry.dist.read_text("direct_url.json") is not None


def _digest(module: ModuleType) -> str:
    """Of a plugin's file, or of every .py of the package that it is in."""
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    file = Path(top.__file__ or "")
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    digest = hashlib.sha256()
    for one in filter(Path.is_file, files):
        digest.update(one.relative_to(file.parent).as_posix().encode() + b"\0" if len(files) > 1 else b"")
        digest.update(one.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _import(plugin: str, load: Any, *, asked: bool) -> ModuleType:
    try:
        module: ModuleType = load()
    except PluginError:
        raise
    except Exception as error:  # a plugin may fail in any way; the user needs its name and the reason
        reason = f"{type(error).__name__}: {error}"
        hint = f"mend it, or leave it out{'' if asked else f' with -p no:{plugin}'}"
        raise PluginError(f"plugin {plugin!r} does not import: {reason}", hint=hint) from error
    return module


def _load(plugin: str) -> ModuleType:
    path = Path(plugin)
    if path.suffix != ".py":
        try:
            return importlib.import_module(plugin)
        except ModuleNotFoundError:
            if path.with_suffix(".py").is_file():
                hint = f"a file needs its whole name: -p {path.with_suffix('.py')}"
                raise PluginError(f"there is no module {plugin!r}", hint=hint) from None
            raise
    if not path.is_file():
        raise PluginError(f"plugin file {plugin} is not there", hint="give the path of a .py file, or a module name")
    name = f"mixmerge_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
