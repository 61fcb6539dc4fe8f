"""Summarising code, and what the paper's recipes train on: tasks ask what training asks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixmerge import SourceError
from mixmerge.sources import DataSpec, load_rows

ROOT = Path(__file__).parent.parent
NAMES = ["mm_code2text_python", "mm_code2text_python_dev"]
RECIPES = ["deepseek1.3b", "deepseek7b", "qwen1.5b", "qwen7b", "qwen14b"]


def utils(folder: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{folder}_paper_utils", ROOT / "tasks" / folder / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CODE2TEXT = utils("mm_code2text")


@pytest.fixture
def local_data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXMERGE_DATA", str(data_dir))
    return data_dir


def manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(ROOT / "tasks"), include_defaults=False)


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_is_one_clear_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXMERGE_DATA", str(tmp_path))
    with pytest.raises(SourceError, match="there is no file") as error:
        manager().load([name])
    assert "$MIXMERGE_DATA" in error.value.hint
    assert "hub" in error.value.hint


def test_tasks_load(local_data: Path) -> None:
    tasks = manager().load(NAMES)["tasks"]
    assert [len(tasks[name].eval_docs) for name in NAMES] == [800, 200]
    for name in NAMES:
        assert tasks[name].config.metadata["primary"] in tasks[name].higher_is_better()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_train_on_what_the_task_asks(name: str, local_data: Path) -> None:
    entry = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text())["data"]["sum"]
    assert (entry["source"], entry["languages"]) == ("codexglue", ["python"])
    spec = DataSpec(**{**entry, "source": f"codexglue:{local_data / 'code2text'}", "split": "test"})
    asked = {row["prompt"]: row["completion"] for dev in (True, False) for row in CODE2TEXT.rows("python", dev)}
    for row in load_rows(spec, 0).rows:
        assert asked[row["prompt"][0]["content"]] == row["completion"]


def test_functions_to_choose_on_are_not_in_the_test(local_data: Path) -> None:
    dev, test = (CODE2TEXT.rows("python", dev) for dev in (True, False))
    assert not {row["id"] for row in dev} & {row["id"] for row in test}
    assert len({row["id"] for row in [*dev, *test]}) == 1000


def test_summaries_come_out_of_fences_and_quotes() -> None:
    for response in (
        "Add two\nnumbers.\n\nMore.",
        '"""Add two numbers."""',
        '```python\n"""\nAdd two numbers.\n"""\n```',
    ):
        assert CODE2TEXT.summary_of(response) == "Add two numbers."
    perfect = CODE2TEXT.scores({"completion": "Add two numbers."}, ["Add two numbers."])
    assert perfect["rouge_l"] == pytest.approx(100)
    assert perfect["rouge_l@constant sentence"] < 20
