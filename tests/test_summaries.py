"""The recipe for summaries in two languages, from end to end on real rows: some ten minutes."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TESTS

Cli = Callable[..., subprocess.CompletedProcess[str]]
RECIPE = TESTS.parent / "recipes" / "summaries.yaml"
PARTS = {"train": (0, 600), "valid": (600, 750), "test": (750, 1000)}


@pytest.mark.slow
def test_two_languages(mixmerge: Cli, data_dir: Path, tmp_path: Path) -> None:
    """Rows that were published to test on are cut into three parts here, since there are no others."""
    for language in ("python", "java"):
        text = gzip.decompress((data_dir / "code2text" / language / "test.jsonl.gz").read_bytes()).decode()
        rows = [json.loads(line) for line in text.splitlines()]
        folder = tmp_path / "code2text" / language
        folder.mkdir(parents=True)
        for name, (begin, end) in PARTS.items():
            part = [json.dumps({**row, "partition": name}) for row in rows[begin:end]]
            (folder / f"{name}.jsonl").write_text("\n".join(part))
    (tmp_path / "nltk_data").symlink_to(data_dir / "nltk_data")
    recipe = tmp_path / "summaries.yaml"
    recipe.write_text(RECIPE.read_text().replace("source: codexglue", f'source: "codexglue:{tmp_path / "code2text"}"'))
    done = mixmerge("recipe", recipe, timeout=3600, env={"MIXMERGE_DATA": str(tmp_path)})
    assert done.returncode == 0, done.stderr

    found = json.loads(mixmerge("report", recipe, "--json").stdout)
    scores = {(row["model"], row["task"]): row["value"] for row in found if row["metric"] == "bleu4_codexglue"}
    for language in ("python", "java"):
        task = f"mm_code2text_{language}"
        assert scores[f"{language}_expert", task] > scores["base", task]
        assert {"function name", "constant sentence"} <= {model for model, of in scores if of == task}
    report = (tmp_path / "runs" / "summaries" / "report" / "report.md").read_text()
    assert "C-UDA" in report
    assert "python: 600 of 251,820 published rows of split train" in report
