"""The built-in diagnostics on a tiny Llama, against NumPy float64 over whole tensors."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from mixmerge import Checkpoint, Component, Measurement, TensorStack, TensorView, Training
from mixmerge.checkpoint import Observer, measure, view
from mixmerge.checkpoint.slabs import InMemory
from mixmerge.plugins import diagnostics
from mixmerge.work import observer

Table = Mapping[str, np.ndarray]
Found = dict[tuple[str, str, tuple[str, ...]], float]
MODELS = ("alpha", "beta", "gamma")
TRAINING = Training(lr=1e-3, steps=40)


@pytest.fixture(scope="module")
def models(tiny_model_dir: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    """A tiny Llama with biases, and three models at the scale of real changes; gamma moves two thirds of its weights,
    and leaves layer 1 alone. Only beta's training is on record."""
    folder = tmp_path_factory.mktemp("diagnosed")
    draw = np.random.default_rng(5)
    source = tiny_model_dir(seed=0)
    base = load_file(source / "model.safetensors")
    base |= {f"model.layers.{i}.self_attn.q_proj.bias": draw.normal(size=16).astype("f4") for i in range(2)}
    shared = {name: draw.normal(size=tensor.shape) for name, tensor in base.items()}
    found = []
    for index, name in enumerate(("base", *MODELS)):
        shutil.copytree(source, folder / name)
        tensors = {}
        for tensor_name, tensor in base.items():
            change = 1e-3 * (0.5 * shared[tensor_name] + draw.normal(size=tensor.shape) + 0.2)
            if name == "gamma":
                change *= draw.random(tensor.shape) < 2 / 3
                change *= ".layers.1." not in tensor_name
            tensors[tensor_name] = tensor if index == 0 else (tensor + change).astype("f4")
        save_file(tensors, folder / name / "model.safetensors")
        training = TRAINING if name == "beta" else Training()
        found.append(Checkpoint(name, folder / name, f"id of {name}", training=training))
    return found


def diagnose(models: list[Checkpoint], *components: Component, **parameters: Any) -> list[Measurement]:
    observers = [observer(component, parameters, models[1:]) for component in components]
    return measure(models[0], models[1:], observers)


def figures(models: list[Checkpoint], component: Component, **parameters: Any) -> Found:
    return {(one.metric, one.group, one.models): one.value for one in diagnose(models, component, **parameters)}


def groups(models: list[Checkpoint]) -> dict[str, list[str]]:
    """Group to tensor names, put down by hand for a Llama with tied embeddings."""
    names = list(load_file(models[0].path / "model.safetensors"))
    layers = {f"layer {i}": [name for name in names if f"layers.{i}." in name] for i in range(2)}
    rest = {"embeddings": ["model.embed_tokens.weight"], "norm": ["model.norm.weight"]}
    both = layers["layer 0"] + layers["layer 1"]
    types = {
        f"type {kind}": [f"model.layers.{i}.{kind}.weight" for i in range(2)]
        for kind in (
            *(f"self_attn.{part}_proj" for part in "qkvo"),
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
            *("input_layernorm", "post_attention_layernorm"),
        )
    }
    types["type self_attn.q_proj.bias"] = [f"model.layers.{i}.self_attn.q_proj.bias" for i in range(2)]
    return layers | rest | {"layers": both, "all": names} | types


def deltas(models: list[Checkpoint]) -> tuple[Table, list[Table]]:
    """The base and each model's change, in float64 from the start."""
    base, *others = (
        {name: tensor.astype("f8") for name, tensor in load_file(model.path / "model.safetensors").items()}
        for model in models
    )
    return base, [{name: other[name] - base[name] for name in base} for other in others]


def joined(table: Table, names: list[str]) -> np.ndarray:
    return np.concatenate([table[name].ravel() for name in names])


def close(found: Found, expected: Found) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-10, abs=1e-14), key


def test_l2(models: list[Checkpoint]) -> None:
    base, changes = deltas(models)
    expected: Found = {}
    for group, names in groups(models).items():
        matrices = [name for name in names if base[name].ndim == 2]
        for model, change in zip(MODELS, changes, strict=True):
            whole = joined(change, names)
            norm = float(np.linalg.norm(whole))
            own = {"norm": norm, "relative_norm": norm / float(np.linalg.norm(joined(base, names)))}
            own["rms"] = float(np.sqrt(np.mean(whole**2)))
            if matrices:
                own["l2_mean"] = float(np.mean([np.linalg.norm(change[name], "fro") for name in matrices]))
            if model == "beta":
                own |= {f"{key}_per_lr_step": own[key] / 0.04 for key in ("l2_mean", "rms") if key in own}
            expected |= {(metric, group, (model,)): value for metric, value in own.items()}
    assert ("l2_mean", "norm", ("alpha",)) not in expected
    assert expected["norm", "layer 1", ("gamma",)] == 0
    close(figures(models, diagnostics.l2), expected)


def test_correlation(models: list[Checkpoint]) -> None:
    _, changes = deltas(models)
    high = [
        {name: np.where(np.abs(tensor) < 0.3 * np.abs(tensor).max(), 0, tensor) for name, tensor in change.items()}
        for change in changes
    ]
    expected: Found = {}
    for group, names in groups(models).items():
        for i, j in combinations(range(3), 2):
            x, y = (joined(changes[k], names) for k in (i, j))
            pair = (MODELS[i], MODELS[j])
            both = (x != 0) & (y != 0)
            if not both.any():
                assert (group, j) == ("layer 1", 2)  # gamma did not move there
                continue
            expected["pearson", group, pair] = float(np.corrcoef(x, y)[0, 1])
            expected["cosine", group, pair] = float(x @ y / np.sqrt((x @ x) * (y @ y)))
            expected["sign_agreement", group, pair] = float((np.sign(x) == np.sign(y))[both].mean())
            over = (joined(high[k], names) for k in (i, j))
            expected["pearson_plotted", group, pair] = float(np.corrcoef(*over)[0, 1])
    assert 0.1 < expected["pearson", "all", ("alpha", "beta")] < 0.3  # 0.25 of 1.25 is shared
    close(figures(models, diagnostics.correlation), expected)


def test_null_tells_of_runs_that_differ_in_their_seed_alone(models: list[Checkpoint]) -> None:
    assert diagnose(models, diagnostics.null) == []
    tasks = ("", "write", "sum", "write")
    told = [replace(model, training=Training(task=task)) for model, task in zip(models, tasks, strict=True)]
    found, all_pairs = figures(told, diagnostics.null), figures(told, diagnostics.correlation)
    assert found == {key: value for key, value in all_pairs.items() if key[2] == ("alpha", "gamma")}
    assert {metric for metric, _, _ in found} == {"pearson", "cosine", "sign_agreement", "pearson_plotted"}


def test_conflict(models: list[Checkpoint]) -> None:
    _, changes = deltas(models)
    expected: Found = {}
    for group, names in groups(models).items():
        values = np.stack([joined(change, names) for change in changes])
        for members in ((0, 1), (0, 2), (1, 2), (0, 1, 2)):
            own, about = values[list(members)], tuple(MODELS[index] for index in members)
            positive, negative = np.where(own > 0, own, 0).sum(0), np.where(own < 0, -own, 0).sum(0)
            expected["sign_conflict", group, about] = float(np.minimum(positive, negative).sum() / np.abs(own).sum())
            masks = np.stack([np.abs(one) >= 0.7 * np.abs(np.delete(own, i, 0).sum(0)) for i, one in enumerate(own)])
            needed = masks.sum(0)[(own != 0).any(0)]
            expected["selfish", group, about] = float((needed == 1).mean())
            expected["shared", group, about] = float((needed >= 2).mean())
            expected["catastrophic", group, about] = float((needed == 0).mean())
    assert expected["sign_conflict", "layer 1", ("alpha", "gamma")] == 0  # gamma did not move there
    assert expected["selfish", "layer 1", ("alpha", "gamma")] == 1
    assert 0.001 < expected["catastrophic", "all", MODELS] < 0.1
    close(figures(models, diagnostics.conflict, threshold=0.7), expected)


def test_conflict_is_between_experts_of_different_tasks(models: list[Checkpoint]) -> None:
    told = [
        models[0],
        replace(models[1], kind="expert", training=Training(task="write")),
        replace(models[2], kind="mixture", training=Training(task="both")),
        replace(models[3], kind="expert", training=Training(task="write")),
        replace(models[2], name="delta", kind="expert", training=Training(task="sum")),
    ]
    assert {one.models for one in diagnose(told, diagnostics.conflict)} == {("alpha", "delta")}


def test_changed(models: list[Checkpoint]) -> None:
    base, changes = deltas(models)
    expected: Found = {}
    for group, names in groups(models).items():
        for model, change in zip(MODELS, changes, strict=True):
            moved = joined(change, names) != 0
            expected["changed", group, (model,)] = float(moved.mean())
            if moved.any():
                old = joined(base, names).astype("f4")
                new = (joined(base, names) + joined(change, names)).astype("f4")
                step = (new == np.nextafter(old, np.float32("inf"))) | (new == np.nextafter(old, np.float32("-inf")))
                expected["one_ulp", group, (model,)] = float(step[moved].mean())
    assert 0.3 < expected["changed", "all", ("gamma",)] < 0.7 < expected["changed", "all", ("alpha",)]
    close(figures(models, diagnostics.changed), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_one_ulp_for_every_neighbour_of_every_kind_of_number(dtype: torch.dtype) -> None:
    """Zeros of both signs, the least numbers, and powers of two, whose two neighbours are not equally far."""
    low, most = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    tiny = torch.nextafter(torch.zeros((), dtype=torch.float32).to(dtype), torch.ones((), dtype=dtype))
    some = torch.tensor([0.0, -0.0, tiny, -tiny, low, -low, 1.0, -1.0, 1.5, 2.0, -4.0, 0.02, most], dtype=dtype)
    new = torch.stack(
        [some, *(torch.nextafter(some, to.to(dtype)) for to in (some.new_ones(()) * 9, -some.new_ones(()) * 9))]
    )
    new = torch.cat([new, torch.nextafter(new[1], some.new_ones(()) * 9)[None]])  # two steps up
    new[:, -1] = some[-1]
    old = some.expand_as(new)
    others = len(some) - 1
    for base in (old, old.double()):
        one = Checkpoint("one", Path(), "one")
        t = view.TensorView("w", old.shape, (one, [one]), [InMemory(base.contiguous()), InMemory(new.contiguous())])
        counts = diagnostics.changed.function(t)["counts"]
        assert counts.tolist() == [[3 * others, 2 * others]]


def test_rounding_to_bfloat16_shows(models: list[Checkpoint], tmp_path: Path) -> None:
    """A change of 1e-5 is lost for nearly every weight: bfloat16 keeps 8 bits, so a step near 0.02 is some 1e-4. What
    is not lost is one step. Against the float32 base, every weight that was rounded has changed, by less than one."""
    base = {name: torch.from_numpy(tensor) for name, tensor in load_file(models[0].path / "model.safetensors").items()}
    for name, change in (("base", 0.0), ("moved", 1e-5)):
        shutil.copytree(models[0].path, tmp_path / name)
        save_torch({key: (t + change).bfloat16() for key, t in base.items()}, tmp_path / name / "model.safetensors")
    pair = [Checkpoint(name, tmp_path / name, name) for name in ("base", "moved")]
    found = figures(pair, diagnostics.changed)
    stored = [torch.cat([(t + c).bfloat16().flatten() for t in base.values()]) for c in (0.0, 1e-5)]
    assert found["changed", "all", ("moved",)] == pytest.approx(float((stored[0] != stored[1]).double().mean()))
    assert found["changed", "all", ("moved",)] < 0.3
    assert found["one_ulp", "layers", ("moved",)] > 0.7
    wide = figures([models[0], pair[0]], diagnostics.changed)
    assert wide["changed", "layers", ("base",)] > 0.8
    assert wide["one_ulp", "layers", ("base",)] == 1.0


def test_spectrum(models: list[Checkpoint]) -> None:
    _, changes = deltas(models)
    rank, expected = 3, dict[tuple[str, str, tuple[str, ...]], float]()

    def both(change: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        left, values, right = np.linalg.svd(change, full_matrices=False)
        return left[:, :rank], values, right[:rank].T

    for group, names in groups(models).items():
        for i, change in enumerate(changes):
            values = [both(change[name])[1] for name in names if change[name].ndim == 2 and change[name].any()]
            if not values:
                continue
            shares = [one / one.sum() for one in values]
            effective = float(np.mean([np.exp(-(one * np.log(one)).sum()) for one in shares]))
            expected["effective_rank", group, (MODELS[i],)] = effective
            expected["effective_rank_least", group, (MODELS[i],)] = effective
            stable = [(one**2).sum() / one[0] ** 2 for one in values]
            expected["stable_rank", group, (MODELS[i],)] = float(np.mean(stable))
            captured = [(one[:rank] ** 2).sum() / (one**2).sum() for one in values]
            expected["captured", group, (MODELS[i],)] = float(np.mean(captured))
            expected["svd_error", group, (MODELS[i],)] = 0.0
        for i, j in combinations(range(3), 2):
            pairs = [
                (both(changes[i][name]), both(changes[j][name]))
                for name in names
                if changes[i][name].ndim == 2 and changes[i][name].any() and changes[j][name].any()
            ]
            for metric, side in (("overlap_out", 0), ("overlap_in", 2)):
                if pairs:
                    overlap = [np.linalg.norm(one[side].T @ other[side]) ** 2 / rank for one, other in pairs]
                    expected[metric, group, (MODELS[i], MODELS[j])] = float(np.mean(overlap))
    close(figures(models, diagnostics.spectrum, rank=rank), expected)


def test_randomised_spectrum_tells_its_error(tmp_path: Path, models: list[Checkpoint]) -> None:
    """Matrices of 400 by 300: one of rank 5 and noise, where six directions are nearly all, and one of noise alone."""
    draw = np.random.default_rng(3)
    base, low, noise = (
        np.zeros((400, 300)),
        draw.normal(size=(400, 5)) @ draw.normal(size=(5, 300)),
        draw.normal(size=(400, 300)),
    )
    folders = []
    for name, tensor in (("base", base), ("low", low + 0.1 * noise), ("noise", noise)):
        shutil.copytree(models[0].path, tmp_path / name)
        save_file({"model.layers.0.mlp.up_proj.weight": tensor}, tmp_path / name / "model.safetensors")
        folders.append(Checkpoint(name, tmp_path / name, name))
    found = figures(folders, diagnostics.spectrum, rank=6)
    again = figures(folders, diagnostics.spectrum, rank=6)
    assert found == again
    for name, change in (("low", low + 0.1 * noise), ("noise", noise)):
        values = np.linalg.svd(change, compute_uv=False)
        shares = values / values.sum()
        truth = float(np.exp(-(shares * np.log(shares)).sum()))
        one = {metric: value for (metric, group, about), value in found.items() if group == "all" and about == (name,)}
        assert one["effective_rank_least"] < truth < one["effective_rank"]
        # A residual of D V - U S bounds what the singular values can be off by (Weyl).
        squares = float((values**2).sum())
        missing = (values[:6] ** 2).sum() / squares - one["captured"]
        assert -1e-12 < missing < 3 * one["svd_error"]
        if name == "low":
            assert one["svd_error"] < 0.02
            assert one["stable_rank"] == pytest.approx(squares / values[0] ** 2, rel=1e-6)
            assert one["captured"] > 0.99


@pytest.mark.parametrize("count", [20_000_000, pytest.param(100_000_000, marks=pytest.mark.slow)])
def test_sums_of_many_float32_lose_nothing(count: int, tmp_path: Path, models: list[Checkpoint]) -> None:
    """Against exact integers: the weights are 1 to 1000, again and again, times 2**-10. A float32 total loses 1e-9 at
    the least, and one that adds weight by weight stops growing."""
    cycle, files = np.arange(1, 1001, dtype="i8"), []
    for index, name in enumerate(("base", "one", "two")):
        shutil.copytree(models[0].path, tmp_path / name)
        change = np.full(count, index * 0.25, "f4") if index != 1 else np.resize(cycle.astype("f4") / 1024, count)
        tensor = {"model.layers.0.mlp.up_proj.weight": change.reshape(-1, 10_000)}
        save_file(tensor, tmp_path / name / "model.safetensors")
        files.append(Checkpoint(name, tmp_path / name, name))
    found = figures(files, diagnostics.l2) | figures(files, diagnostics.correlation)
    total, square = count // 1000 * int(cycle.sum()), count // 1000 * int((cycle**2).sum())
    assert found["norm", "all", ("one",)] == pytest.approx(square**0.5 / 1024, rel=1e-13)
    assert found["norm", "all", ("two",)] == pytest.approx(0.5 * count**0.5, rel=1e-13)
    cosine = total / (square**0.5 * count**0.5)
    assert found["cosine", "all", ("one", "two")] == pytest.approx(cosine, rel=1e-13)
    values = load_file(files[1].path / "model.safetensors")["model.layers.0.mlp.up_proj.weight"].ravel()
    assert abs(float((values * values).sum(dtype="f4")) / (square / 1024**2) - 1) > 1e-9
    one_by_one = float(np.cumsum(values * values, dtype="f4")[-1])
    assert abs(one_by_one / (square / 1024**2) - 1) > 0.01


def test_parts_slabs_and_tensors_that_are_not_held_change_nothing(
    monkeypatch: pytest.MonkeyPatch, models: list[Checkpoint]
) -> None:
    whole = diagnose(models, *diagnostics.register_diagnostics())
    monkeypatch.setattr(view, "PART", 50)
    monkeypatch.setattr(view, "SLAB", 250)
    for held in (1 << 30, 0):
        monkeypatch.setattr(view, "HELD_BYTES", held)
        parts = diagnose(models, *diagnostics.register_diagnostics())
        assert [(one.metric, one.group, one.models) for one in parts] == [
            (one.metric, one.group, one.models) for one in whole
        ]
        for one, other in zip(parts, whole, strict=True):
            assert one.value == pytest.approx(other.value, rel=1e-10, abs=1e-14)


def test_figures_of_models_that_did_not_move_or_moved_alike(models: list[Checkpoint]) -> None:
    base, alpha = models[:2]
    still = [base, Checkpoint("still", base.path, "still"), alpha, Checkpoint("twin", alpha.path, "twin")]
    found = diagnose(still, diagnostics.l2, diagnostics.correlation, diagnostics.changed)
    pairs = {(one.metric, one.models, one.value) for one in found if len(one.models) == 2}
    assert pairs == {
        (metric, ("alpha", "twin"), 1.0) for metric in ("pearson", "cosine", "sign_agreement", "pearson_plotted")
    }
    own = {one.value for one in found if one.models == ("still",)}
    assert own == {0.0}


def test_a_constant_change_has_no_correlation() -> None:
    """The same step for every weight: its variance is rounding, and Pearson of rounding means nothing."""
    finish = diagnostics.correlation.finish
    assert finish is not None
    deltas = torch.stack([torch.full((1000,), 0.1, dtype=torch.float64), torch.linspace(-1, 1, 1000).double()])
    products, sums = deltas @ deltas.T, deltas.sum(1)
    both = torch.full((2, 2), 1000.0)
    given = {"products": products, "sums": sums, "plotted_products": products, "plotted_sums": sums}
    found = finish({"count": torch.tensor(1000.0), "both": both, "agree": both / 2, **given}, ("a", "b"))
    assert [metric for metric, _, _ in found] == ["cosine", "sign_agreement"]


def test_a_diagnostic_may_take_the_whole_tensor_as_mergers_do(models: list[Checkpoint]) -> None:
    """The API of the design: base and deltas in float32, one row per model, weights of one, a generator per model."""
    stacks: dict[str, TensorView] = {}

    def observe(t: TensorView) -> Mapping[str, torch.Tensor]:
        assert t.base.dtype == t.deltas.dtype == torch.float32
        assert t.weights.shape == (3, *[1] * t.base.ndim)
        stack = TensorStack(t.name, t.base, t.deltas, t.weights, t.experts, t.seed)
        assert torch.equal(torch.rand(3, generator=t.generator(1)), torch.rand(3, generator=stack.generator(1)))
        stacks[t.name] = t
        return {"largest": t.deltas.abs().double().reshape(3, -1).sum(1)}

    def finish(sums: Mapping[str, torch.Tensor], names: Any) -> Any:
        return [("size", (name,), float(value)) for name, value in zip(names, sums["largest"], strict=True)]

    found = measure(models[0], models[1:], [Observer("mine", observe, finish)])
    base, changes = deltas(models)
    assert list(stacks) == sorted(base)
    for one in found:
        if one.group == "all":
            change = changes[MODELS.index(one.models[0])]
            assert one.value == pytest.approx(float(sum(np.abs(t).sum() for t in change.values())), rel=1e-6)


def test_every_diagnostic_documents_its_figures(models: list[Checkpoint]) -> None:
    told = [replace(model, training=Training(1e-3, 40, "one")) for model in models]
    for component in diagnostics.register_diagnostics():
        text = (component.function.__doc__ or "") + component.name
        found = {one.metric for one in diagnose(told if component.name in ("l2", "null") else models, component)}
        assert found
        for metric in found:
            assert re.search(rf"\b{metric}\b", text), (component.name, metric)
