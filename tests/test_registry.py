from __future__ import annotations

from pathlib import Path

import pytest

from mixmerge import hookspecs
from mixmerge.components import KINDS
from mixmerge.errors import PluginError
from mixmerge.registry import Registry

PLUGIN = """
from mixmerge import hookimpl, merger

@merger(name="{name}", version="1")
def own(t, *, scale: float = 1.0):
    return t.base

@hookimpl
def {hook}():
    return [own]
"""


def plugin(tmp_path: Path, name: str = "own", hook: str = "register_mergers") -> str:
    path = tmp_path / f"{name}_{hook}.py"
    path.write_text(PLUGIN.format(name=name, hook=hook))
    return str(path)


def test_every_kind_has_a_built_in() -> None:
    registry = Registry()
    assert all(registry.names(kind) for kind in KINDS)
    hooks = [name for name in vars(hookspecs) if name.startswith(("register_", "step_"))]
    assert len(hooks) == 10


def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    registry = Registry([plugin(tmp_path)])
    assert "scale" in registry.get("merger", "own").parameters


def test_a_built_in_can_be_left_out() -> None:
    assert "ties" in Registry().names("merger")
    assert "ties" not in Registry(["no:mergers"]).names("merger")


def test_observers_see_steps(tmp_path: Path) -> None:
    path = tmp_path / "observer.py"
    path.write_text(
        "from mixmerge import hookimpl\nseen = []\n@hookimpl\ndef step_started(step):\n    seen.append(step)\n"
    )
    registry = Registry([str(path)])
    registry.hooks.step_started(step="a step")
    import sys

    assert sys.modules["mixmerge_plugin_observer"].seen == ["a step"]


def test_a_misspelt_hook_names_the_plugin(tmp_path: Path) -> None:
    path = plugin(tmp_path, hook="register_merger")
    with pytest.raises(
        PluginError, match=r"(?s)plugin '.*own_register_merger.py': 'register_merger' is no hook"
    ) as caught:
        Registry([path])
    assert caught.value.hint == "did you mean 'register_mergers'?"


def test_a_plugin_without_hooks_is_no_plugin(tmp_path: Path) -> None:
    path = tmp_path / "forgot.py"
    path.write_text("def register_mergers():\n    return []\n")
    with pytest.raises(PluginError, match="registers nothing") as caught:
        Registry([str(path)])
    assert "@hookimpl" in caught.value.hint


def test_a_name_that_is_taken_names_both(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"the merger name 'ties' is taken by plugin 'mergers'"):
        Registry([plugin(tmp_path, name="ties")])


def test_a_plugin_that_does_not_import(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_this_name\n")
    with pytest.raises(
        PluginError, match="does not import: ModuleNotFoundError: No module named 'nothing_of_this_name'"
    ):
        Registry([str(path)])


@pytest.mark.parametrize("name", ["./missing.py", "no:nothing", "no_such_module_anywhere"])
def test_a_plugin_that_is_not_there(name: str) -> None:
    with pytest.raises(PluginError, match=r"missing|nothing|no_such_module"):
        Registry([name])


def test_an_unknown_name_suggests() -> None:
    with pytest.raises(PluginError) as caught:
        Registry().get("merger", "linaer")
    assert caught.value.hint.startswith("did you mean 'linear'?")


def test_the_source_of_a_plugin_at_hand_is_part_of_what_its_components_are(tmp_path: Path) -> None:
    """Under any name and path; built-ins go by their version alone."""
    path = Path(plugin(tmp_path))
    first = Registry([str(path)]).get("merger", "own").identity
    moved = path.rename(tmp_path / "another.py")
    assert Registry([str(moved)]).get("merger", "own").identity == first
    moved.write_text(moved.read_text().replace("return t.base", "return t.base * 2"))
    assert Registry([str(moved)]).get("merger", "own").identity != first
    assert first.startswith("1+")
    assert {one.identity for one in Registry()} == {one.version for one in Registry()}


def test_a_module_counts_with_its_whole_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    def identity() -> str:
        for name in [name for name in sys.modules if name.startswith("own_package")]:
            del sys.modules[name]
        return Registry(["own_package.hooks"]).get("merger", "own").identity

    folder = tmp_path / "own_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "helper.py").write_text("SCALE = 1\n")
    (folder / "hooks.py").write_text(PLUGIN.format(name="own", hook="register_mergers"))
    monkeypatch.syspath_prepend(str(tmp_path))
    first = identity()
    assert identity() == first
    (folder / "helper.py").write_text("SCALE = 2\n")
    assert identity() != first


@pytest.mark.parametrize(
    ("signature", "what", "hint"),
    [
        ("t, scale: float = 1.0", "merger 'own': 'scale' must be given by keyword", "write `*, ` before scale"),
        ("*, scale: float = 1.0", "merger 'own' takes 0 of the 1 values that mixmerge supplies", "t come first"),
    ],
)
def test_a_signature_that_mixmerge_could_not_call(tmp_path: Path, signature: str, what: str, hint: str) -> None:
    path = Path(plugin(tmp_path))
    path.write_text(path.read_text().replace("t, *, scale: float = 1.0", signature))
    with pytest.raises(PluginError, match=what) as caught:
        Registry([str(path)])
    assert hint in caught.value.hint


def test_a_file_without_its_ending_is_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plugin(tmp_path)
    with pytest.raises(PluginError, match="there is no module 'own_register_mergers'") as caught:
        Registry(["own_register_mergers"])
    assert "-p own_register_mergers.py" in caught.value.hint
