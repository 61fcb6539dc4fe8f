"""Function and docstring pairs from what is installed here: named packages, and the Python standard library.

Held-out functions come from the standard library, training pairs from packages; setuptools is refused because it
carries copies of the former. `docstrings` has the rules.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePath

from ..errors import SourceError
from .docstrings import NearDuplicates, Pair, normal, pairs_in

STDLIB_SIZES = {"test": 80, "dev": 40}
"""Held-out functions of the standard library; training pairs are the rest of it."""
STDLIB_LICENCE = "PSF-2.0"

_SKIPPED_PARTS = frozenset({"_vendor", "_vendored", "vendor", "tests", "test", "testing", "examples", "setup.py"})


def python_version() -> str:
    """Which standard library this is."""
    return platform.python_version()


@lru_cache(maxsize=1)
def _stdlib() -> Mapping[str, tuple[Pair, ...]]:
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in root.glob("*.py") if path.stem in sys.stdlib_module_names and path.stem[0] != "_"]
    found = [pair for path in files for pair in pairs_in(_read(path), f"python:{path.stem}")]
    # The order by hash of the name changes as little as can be from one Python version to the next.
    found.sort(key=lambda pair: hashlib.sha256(pair.id.encode()).digest())
    test, both = STDLIB_SIZES["test"], sum(STDLIB_SIZES.values())
    compare = NearDuplicates()
    candidates = iter(found)
    held_out = list(itertools.islice((pair for pair in candidates if compare.add(pair)), both))
    if len(held_out) < both:
        raise SourceError(
            f"the standard library in {root} has only {len(held_out)} functions with docstrings",
            hint="python-stdlib: needs a Python that ships its standard library as source",
        )
    return {"test": tuple(held_out[:test]), "dev": tuple(held_out[test:]), "rest": tuple(candidates)}


def stdlib_pairs(split: str) -> tuple[Pair, ...]:
    """Functions of the top-level public modules of the running Python's standard library.

    `test` and `dev` are fixed for one Python version, free of near duplicates, and arbitrary otherwise (ordered by a
    hash of their names). Takes about two seconds the first time in a process. Raises KeyError for another split and
    SourceError where the standard library has no sources.
    """
    if split not in STDLIB_SIZES:
        raise KeyError(split)
    return _stdlib()[split]


def stdlib_training_pairs() -> tuple[tuple[Pair, ...], int]:
    """The rest of the standard library, as `package_pairs` gives it."""
    return _training(_stdlib()["rest"])


def package_pairs(requirements: Sequence[tuple[str, str]]) -> tuple[tuple[Pair, ...], int]:
    """Pairs from installed packages, given as (name, version), and how many near duplicates of the held-out standard
    library functions were removed. Sorted by id.

    A pinned version matches an installed one that adds a local part (`2.13.0` matches `2.13.0+cpu`). Raises
    SourceError when a package is missing, has another version, has no Python sources, or is setuptools.
    """
    return _training([pair for name, version in requirements for pair in _pairs_of(name, version)])


def _training(found: Iterable[Pair]) -> tuple[tuple[Pair, ...], int]:
    compare = NearDuplicates([*stdlib_pairs("test"), *stdlib_pairs("dev")])
    docstrings: set[str] = set()
    codes: set[str] = set()
    kept: list[Pair] = []
    removed = 0
    for pair in sorted(found, key=lambda pair: pair.id):
        docstring, code = normal(pair.docstring), " ".join(pair.code.split())
        if docstring in docstrings or code in codes:
            continue
        docstrings.add(docstring)
        codes.add(code)
        if compare.near(pair):
            removed += 1
        else:
            kept.append(pair)
    return tuple(kept), removed


def check_installed(requirements: Sequence[tuple[str, str]]) -> None:
    """Raise the SourceError that `package_pairs` would raise about a package or its version."""
    for name, version in requirements:
        _distribution(name, version)


def package_licence(name: str) -> str:
    """The licence that an installed package declares: SPDX expression, else classifier, else the first licence line."""
    metadata = importlib.metadata.metadata(name)
    for expression in metadata.get_all("License-Expression") or []:
        return str(expression)
    for classifier in metadata.get_all("Classifier") or []:
        if classifier.startswith("License ::"):
            return str(classifier).rsplit(" :: ", 1)[-1]
    for text in metadata.get_all("License") or []:
        return (str(text).strip().splitlines() or ["unknown"])[0][:80]
    return "unknown"


def _distribution(name: str, version: str) -> importlib.metadata.Distribution:
    if name.lower() == "setuptools":
        raise SourceError(
            "packages: setuptools carries copies of the standard library, which is the test set",
            hint="leave setuptools out",
        )
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise SourceError(
            f"packages: {name} is not installed", hint=f"{sys.executable} -m pip install {name}=={version}"
        ) from None
    installed = distribution.version
    if installed != version and installed.split("+")[0] != version:
        raise SourceError(
            f"packages: {name} is pinned to {version}, but {installed} is installed",
            hint=f"install {name}=={version}, or write {name}=={installed.split('+')[0]} in the recipe",
        )
    return distribution


def _pairs_of(name: str, version: str) -> Iterator[Pair]:
    distribution = _distribution(name, version)
    files = [file for file in distribution.files or () if file.suffix == ".py" and not _skipped(file)]
    if not files:
        raise SourceError(f"packages: {name} {version} has no Python sources", hint="install it from its wheel")
    for file in files:
        path = Path(str(file.locate()))
        if path.is_file():
            yield from pairs_in(_read(path), f"{name}:{'.'.join(file.with_suffix('').parts)}")


def _skipped(file: PurePath) -> bool:
    named_test = file.stem.startswith("test") or file.stem.endswith("_test") or file.stem == "conftest"
    return named_test or ".." in file.parts or not _SKIPPED_PARTS.isdisjoint(file.parts)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
