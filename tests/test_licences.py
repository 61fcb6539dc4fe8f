"""Licences roll up: from the data into the card of what was trained, of what was merged from it, and the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixmerge.card import write_card, write_training_card
from mixmerge.licences import remark, restriction, together
from mixmerge.sources import resolve_model
from mixmerge.types import Checkpoint, Dataset, Derivation

GEN = Dataset("gen", "kodcode", "CC BY-NC 4.0", 1200)
SUM = Dataset("sum", "own.jsonl", "unknown", 80)
MBPP = Dataset("mbpp", "mbpp", "CC BY 4.0", 374)


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("CC BY-NC 4.0", "non-commercial"),
        ("cc-by-nc-sa-4.0", "non-commercial"),
        ("qwen-research", "non-commercial"),
        ("numpy: BSD-3-Clause, x: CC-BY-NC-4.0", "non-commercial"),
        ("", "unknown"),
        ("unknown", "unknown"),
        ("other", "unknown"),
        ("numpy: BSD-3-Clause, x: unknown", "unknown"),
        ("CC BY 4.0", ""),
        ("apache-2.0", ""),
        ("NCSA", ""),
        ("C-UDA 1.0, each function under the licence of its repository", ""),
    ],
)
def test_what_a_licence_says_of_commercial_use(licence: str, kind: str) -> None:
    assert restriction(licence) == kind
    assert bool(remark("it", licence)) == bool(kind)


def test_the_card_of_what_was_trained(tmp_path: Path) -> None:
    start = Checkpoint("base", tmp_path, "b", licence="apache-2.0")
    write_training_card("gen_expert", start, [GEN, SUM], ("sft", {"lr": 1e-5}, 7), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "Trained by mixmerge with `sft` from base." in card
    assert "Licence of the base: apache-2.0." in card
    assert "| gen | `kodcode` | 1,200 | CC BY-NC 4.0 |" in card
    assert "gen (kodcode) is under CC BY-NC 4.0, which is for non-commercial use" in card
    assert "the licence of sum (own.jsonl) is not known" in card
    write_training_card("clean", start, [MBPP], ("sft", {}, 7), tmp_path)
    assert "Mind:" not in (tmp_path / "README.md").read_text()


def merged(tmp_path: Path, *experts: Checkpoint, base_licence: str = "apache-2.0") -> str:
    base = Checkpoint("base", tmp_path, "b", licence=base_licence)
    weights = (0.5,) * len(experts)
    derivation = Derivation(base, experts, weights, 7, lambda stack: stack.base, method="linear")
    write_card(Checkpoint("merge", tmp_path, "m", derivation), tmp_path, "sha256:abc")
    return (tmp_path / "README.md").read_text()


def test_licences_of_several_are_stated_once_each() -> None:
    assert together(["apache-2.0", "cc-by-nc-4.0", "apache-2.0"]) == "apache-2.0; cc-by-nc-4.0"
    assert together(["apache-2.0; cc-by-nc-4.0", "", "apache-2.0"]) == "apache-2.0; cc-by-nc-4.0; unknown"
    assert together(["", ""]) == ""
    assert restriction("apache-2.0; cc-by-nc-4.0") == "non-commercial"


def test_a_merge_of_a_merge_still_says_what_is_in_it(tmp_path: Path) -> None:
    """Through the card of the first, as a later recipe reads it."""
    given = Checkpoint("given", tmp_path, "1", licence="cc-by-nc-4.0")
    own = Checkpoint("own", tmp_path, "2", licence="apache-2.0", data=(MBPP,))
    merged(tmp_path, given, own)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    found = resolve_model(str(tmp_path))
    assert found.licence == "apache-2.0; cc-by-nc-4.0"
    first = Checkpoint("first", tmp_path, "3", licence=found.licence, data=(MBPP,))
    card = merged(tmp_path, first, own)
    assert "Of first: apache-2.0; cc-by-nc-4.0." in card
    assert "the expert first is under apache-2.0; cc-by-nc-4.0, which is for non-commercial use" in card


def test_the_card_of_a_merge_inherits(tmp_path: Path) -> None:
    one = Checkpoint("gen_expert", tmp_path, "1", licence="apache-2.0", data=(GEN, MBPP))
    two = Checkpoint(
        "sum_expert", tmp_path, "2", licence="apache-2.0", data=(SUM, Dataset("gen", "kodcode", GEN.licence, 5))
    )
    card = merged(tmp_path, one, two)
    assert "| gen_expert | 0.5 | gen (1,200 rows, CC BY-NC 4.0), mbpp (374 rows, CC BY 4.0) | apache-2.0 |" in card
    assert card.count("| gen | `kodcode` |") == 1
    assert "gen (kodcode) is under CC BY-NC 4.0" in card
    assert "the licence of sum (own.jsonl) is not known" in card
    assert "A merge inherits this from its base and its experts." in card
    assert "Weights: `sha256:abc`" in card


def test_the_card_of_a_merge_of_models_from_elsewhere(tmp_path: Path) -> None:
    card = merged(tmp_path, Checkpoint("theirs", tmp_path, "1", licence="cc-by-nc-4.0"), base_licence="")
    assert "Licence of the base: not stated." in card
    assert "the licence of the base is not known" in card
    assert "the expert theirs is under cc-by-nc-4.0" in card
    assert "what theirs was trained on is not known here" in card
