"""Imports point one way only, plugins use the public API, and `mixmerge --help` stays quick."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import mixmerge

PACKAGE = Path(mixmerge.__file__).parent
ORDER = [
    "errors",
    "compiled",
    "types",
    "licences",
    "card",
    "components",
    "hookspecs",
    "registry",
    "reading",
    "recorded",
    "merging",
    "recipe",
    "plan",
    "store",
    "results",
    "gate",
    "samples",
    "collect",
    "work",
    "diagnosis",
    "run",
    "versus",
    "display",
    "show",
    "scoring",
    "doctor",
    "cli",
]
LEAVES = {"checkpoint", "sources", "sandbox", "yamlfile", "paths", "contamination"}
"""Leaves may import `errors` and `types`, and be imported by anything above those."""
PUBLIC = {"checkpoint", "sources", "sandbox", "results", "paths", "plugins", "compiled"}
"""What plugins may import beside `mixmerge` itself."""


def imports(path: Path) -> set[str]:
    """Names of mixmerge's own modules that a file imports anywhere in it."""
    found: set[str] = set()
    package = ("mixmerge", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("mixmerge.")}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            if module == "mixmerge":
                found |= {f"mixmerge.{alias.name}" for alias in node.names if (PACKAGE / alias.name).exists()}
                found |= {f"mixmerge.{a.name}" for a in node.names if (PACKAGE / f"{a.name}.py").exists()}
            elif module.startswith("mixmerge."):
                found.add(module)
    return {name.split(".")[1] for name in found}


def modules() -> dict[Path, str]:
    files = [path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts]
    return {path: path.relative_to(PACKAGE).with_suffix("").parts[0] for path in files}


def test_imports_point_one_way() -> None:
    wrong = []
    for path, name in modules().items():
        if name in ("plugins", "__init__", "__main__"):
            continue
        level = ORDER.index(name) if name not in LEAVES else ORDER.index("types") + 0.5
        for other in imports(path) - {name, "plugins"}:
            if other in LEAVES and name in LEAVES:
                wrong.append(f"{path.name} (a leaf) imports {other} (a leaf)")
            elif other not in LEAVES and ORDER.index(other) >= level:
                wrong.append(f"{path.name} imports {other}, which stands above it")
    assert not wrong


def test_only_the_command_line_knows_a_plugin() -> None:
    """`mixmerge tasks` and `doctor` ask a built-in plugin; nothing else may."""
    knows = {name for path, name in modules().items() if "plugins" in imports(path)} - {"plugins"}
    assert knows <= {"cli", "doctor"}


def test_plugins_use_the_public_api() -> None:
    wrong = [
        f"{path.name} imports {sorted(other)}"
        for path, name in modules().items()
        if name == "plugins" and (other := imports(path) - PUBLIC)
    ]
    assert not wrong


def test_all_is_sorted_and_real() -> None:
    assert list(mixmerge.__all__) == sorted(mixmerge.__all__)
    assert all(hasattr(mixmerge, name) for name in mixmerge.__all__)


def test_importing_mixmerge_imports_nothing_heavy() -> None:
    code = "import sys, mixmerge.cli; print(sorted({'torch', 'numpy', 'transformers', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_package_is_in_the_wheel() -> None:
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    listed = set(settings["tool"]["setuptools"]["packages"]) - {"mixmerge.tasks", "mixmerge.recipes"}
    folders = {file.parent.relative_to(PACKAGE.parent) for file in PACKAGE.rglob("__init__.py")}
    assert listed == {".".join(folder.parts) for folder in folders}
