"""What `mixmerge show` says of `data:` and of each kind of source."""

from __future__ import annotations

import inspect

from .columns import CHANGES
from .named import LOADERS
from .rows import SCHEMES
from .spec import NAMES, DataSpec

_CHANGES = {
    "strip": "without the white space around it",
    "first_paragraph": "of a docstring, on one line",
    "without_docstring": "of Python code, whose row is left out where there is none to take out",
}


def explain(name: str) -> str:
    """An entry of `data:`, for `data` or for the name of a source (such as mbpp or packages); "" for another name."""
    if name not in ("data", *NAMES, *(scheme.removesuffix(":") for scheme in SCHEMES)):
        return ""
    lines = [inspect.getdoc(DataSpec) or "", "", "A change is written {column|change}:"]
    lines += [f"  {change:18} {_CHANGES[change]}" for change in sorted(CHANGES)]
    if loader := LOADERS.get(name):
        splits = ", ".join(loader.splits) or "those of the hub"
        lines += ["", f"{name}: on the hub {loader.hub}; splits {splits}; licence {loader.licence}"]
    return "\n".join(lines)
