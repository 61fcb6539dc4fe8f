from __future__ import annotations

from pathlib import Path

from mixmerge.yamlfile import read


def test_values_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: 5e-6\nb:\n  c: [1, 2.5,\n    .5]\n  d: {e: 1e3, f: text}\n")
    file = read(path)
    assert file.data == {"a": 5e-6, "b": {"c": [1, 2.5, 0.5], "d": {"e": 1000.0, "f": "text"}}}
    assert isinstance(file.data["b"]["c"][0], int)
    assert (file.line(("b", "c")), file.line(("b", "c", 2)), file.line(("b", "d", "f"))) == (3, 4, 5)
    assert file.line(("b", "d", "nowhere", "deeper")) == 5
