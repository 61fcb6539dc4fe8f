"""Mixtures: nested subsets, shares by examples and tokens, `all`; and plugins that change under a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TESTS

from mixmerge import PluginError, SourceError, sources
from mixmerge.registry import Registry
from mixmerge.store import Store
from mixmerge.types import Step, content_id
from mixmerge.work import perform

SIZES = {"short": 100, "long": 60}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two datasets: 100 rows of about 20 characters and 60 of about 200."""
    store = Store(tmp_path)
    for name, count in SIZES.items():
        text = "number " * (2 if name == "short" else 20)
        rows = [{"id": f"{name}{i}", "prompt": f"{text}{i}:", "completion": f" {i}"} for i in range(count)]
        step = Step(name, "data", name, seed=1)
        (store.begin(step) / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        store.put_spec(step)
        store.commit(step, 0.0, {"rows": count, "licence": f"licence of {name}", "notes": []})
    return store


def mix(store: Store, registry: Registry, seed: int = 1, **content: Any) -> list[dict[str, Any]]:
    content = {"shares": [None, None], "unit": "examples", "fraction": 1.0, **content}
    inputs = {"data": ("short", "long")} | ({"base": ("base",)} if content["unit"] == "tokens" else {})
    step = Step(content_id([content, seed]), "mixture", "mix", content=content, inputs=inputs, seed=seed)
    record = perform(step, store, registry)
    rows = [json.loads(line) for line in (store.path(step.id) / "mixture.jsonl").read_text().splitlines()]
    assert record.outcome["rows"] == len(rows)
    assert record.outcome["counts"] == {name: sum(row["data"] == name for row in rows) for name in SIZES}
    return rows


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


def test_all_is_plain_concatenation_shuffled(store: Store, registry: Registry) -> None:
    rows = mix(store, registry)
    assert len(rows) == len(ids(rows)) == 160
    assert len({row["data"] for row in rows[:20]}) == 2


def test_subsets_are_nested(store: Store, registry: Registry) -> None:
    quarter, half, whole = (ids(mix(store, registry, fraction=part)) for part in (0.25, 0.5, 1.0))
    assert quarter < half < whole
    assert (len(quarter), len(half)) == (25 + 15, 50 + 30)


def test_shares_by_examples(store: Store, registry: Registry) -> None:
    rows = mix(store, registry, shares=[0.25, 0.75])
    assert [sum(row["data"] == name for row in rows) for name in SIZES] == [20, 60]


def test_shares_by_tokens(store: Store, registry: Registry, tiny_model_dir: Callable[..., Path]) -> None:
    from transformers import AutoTokenizer

    model = str(tiny_model_dir(seed=0))
    base = Step(
        "base", "source", "fetch base", content={"source": model, "revision": None}, pins=sources.model_pins(model)
    )
    store.put_spec(base)
    perform(base, store, registry)
    rows = mix(store, registry, shares=[0.5, 0.5], unit="tokens")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir(seed=0))
    tokens = {
        name: sum(len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) for row in rows if row["data"] == name)
        for name in SIZES
    }
    assert tokens["short"] == pytest.approx(tokens["long"], rel=0.05)
    assert sum(row["data"] == "short" for row in rows) == 100  # the dataset with fewer tokens is used whole


def test_a_model_that_changes_after_it_was_planned_is_refused(
    store: Store, registry: Registry, tiny_model_dir: Callable[..., Path]
) -> None:
    planned, found = (str(tiny_model_dir(seed=seed)) for seed in (1, 0))
    content = {"source": found, "revision": None}
    step = Step("base", "source", "fetch base", content=content, pins=sources.model_pins(planned))
    with pytest.raises(SourceError, match="is not what it was when the run began"):
        perform(step, store, registry)


def test_the_seed_decides_the_order(store: Store, registry: Registry) -> None:
    first, second = mix(store, registry, seed=1), mix(store, registry, seed=2)
    assert first != second
    assert ids(first) == ids(second)


def test_a_plugin_that_is_edited_while_a_run_goes_on_is_refused(tmp_path: Path) -> None:
    """A worker that starts late loads the file as it is then; its result would lie under the old source's id."""
    from mixmerge import work

    path = tmp_path / "own.py"
    path.write_text((TESTS / "data" / "sign_mean.py").read_text())
    planned = Registry([str(path)]).get("merger", "sign_mean").identity
    assert work.component_of(Registry([str(path)]), "merger", "sign_mean", planned).identity == planned
    path.write_text(path.read_text() + "# edited\n")
    with pytest.raises(PluginError, match="is not what it was when the run began") as caught:
        work.component_of(Registry([str(path)]), "merger", "sign_mean", planned)
    assert "run the same command again" in caught.value.hint
