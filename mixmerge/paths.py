"""Where the files that travel with mixmerge lie: beside the package in a clone, inside it when it was installed."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from pathlib import Path
from typing import Any

from .errors import MixmergeError

_PACKAGE = Path(__file__).parent


def tasks_folder() -> Path:
    """The lm-eval tasks that mixmerge brings; also `lm_eval run --include_path` takes it."""
    return _folder("tasks")


def recipes_folder() -> Path:
    """The recipes that mixmerge brings."""
    return _folder("recipes")


def beside(file: str, name: str) -> Any:
    """The module in NAME.py beside a task's `file`, or in OTHER_TASK/NAME.py; one module however often it is asked for.

    lm-eval imports a task's files by their path, outside any package, so that none can import its neighbour.
    """
    path = Path(file).with_name(f"{name}.py") if "/" not in name else Path(file).parents[1] / f"{name}.py"
    # by the whole path: a changed copy of a task may stand in another folder
    full = f"mixmerge_task_{path.parent.name}_{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[full] = importlib.util.module_from_spec(spec)  # where its dataclasses look
        spec.loader.exec_module(module)
    return sys.modules[full]


def find_recipe(path: Path) -> Path:
    """A recipe's file: what `path` names, else the recipe of ours that is called so, with or without `.yaml`."""
    if path.exists() or path.parent not in (Path(), Path("recipes")):
        return path
    ours = {file.stem: file for file in recipes_folder().glob("*.yaml")}
    return ours.get(path.name.removesuffix(".yaml"), path)


def _folder(name: str) -> Path:
    if (_PACKAGE / name).is_dir():
        return _PACKAGE / name
    clone = _PACKAGE.parent
    # beside an installed package lies whatever else is installed, some of it called "tasks"
    if (clone / "pyproject.toml").is_file() and (clone / name).is_dir():
        return clone / name
    raise MixmergeError(f"the folder {name!r} is missing from this installation", hint="install mixmerge again")
