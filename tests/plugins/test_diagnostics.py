"""The built-in diagnostics on a tiny Llama, against NumPy float64."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from mixmerge import Checkpoint, Component, Measurement, TensorStack
from mixmerge.checkpoint import Observer, measure
from mixmerge.plugins import diagnostics

Table = Mapping[str, np.ndarray]
Found = dict[tuple[str, str, tuple[str, ...]], float]
MODELS = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def models(tiny_model_dir: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    """A tiny Llama with biases, and three models at the scale of real changes; gamma moves two thirds of its weights,
    and leaves layer 1 alone."""
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
        found.append(Checkpoint(name, folder / name, f"id of {name}"))
    return found


def diagnose(models: list[Checkpoint], *components: Component) -> list[Measurement]:
    observers = []
    for component in components:
        assert component.finish is not None
        observers.append(Observer(component.name, component.function, component.finish))
    return measure(models[0], models[1:], observers)


def figures(models: list[Checkpoint], component: Component) -> Found:
    return {(one.metric, one.group, one.models): one.value for one in diagnose(models, component)}


def groups(models: list[Checkpoint]) -> dict[str, list[str]]:
    """Group to tensor names, put down by hand for a Llama with tied embeddings."""
    names = list(load_file(models[0].path / "model.safetensors"))
    layers = {f"layer {i}": [name for name in names if f"layers.{i}." in name] for i in range(2)}
    rest = {"embeddings": ["model.embed_tokens.weight"], "norm": ["model.norm.weight"]}
    return layers | rest | {"layers": layers["layer 0"] + layers["layer 1"], "all": names}


def deltas(models: list[Checkpoint]) -> tuple[Table, list[Table]]:
    """The base and each model's change, subtracted in float32 as it reaches a diagnostic, then float64."""
    base, *others = (load_file(model.path / "model.safetensors") for model in models)
    changes = [{name: (other[name] - base[name]).astype("f8") for name in base} for other in others]
    return {name: tensor.astype("f8") for name, tensor in base.items()}, changes


def joined(table: Table, names: list[str]) -> np.ndarray:
    return np.concatenate([table[name].ravel() for name in names])


def close(found: Found, expected: Found) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-10, abs=1e-13), key


def test_l2(models: list[Checkpoint]) -> None:
    base, changes = deltas(models)
    expected: Found = {}
    for group, names in groups(models).items():
        matrices = [name for name in names if base[name].ndim == 2]
        for model, change in zip(MODELS, changes, strict=True):
            norm = float(np.linalg.norm(joined(change, names)))
            expected["norm", group, (model,)] = norm
            expected["relative_norm", group, (model,)] = norm / float(np.linalg.norm(joined(base, names)))
            if matrices:
                mean = float(np.mean([np.linalg.norm(change[name], "fro") for name in matrices]))
                expected["l2_mean", group, (model,)] = mean
    assert ("l2_mean", "norm", ("alpha",)) not in expected
    assert expected["norm", "layer 1", ("gamma",)] == 0
    close(figures(models, diagnostics.l2), expected)


def test_correlation(models: list[Checkpoint]) -> None:
    _, changes = deltas(models)
    expected: Found = {}
    for group, names in groups(models).items():
        for i, j in combinations(range(3), 2):
            if group == "layer 1" and j == 2:
                continue  # gamma did not move there
            x, y = (joined(changes[k], names) for k in (i, j))
            pair = (MODELS[i], MODELS[j])
            expected["pearson", group, pair] = float(np.corrcoef(x, y)[0, 1])
            expected["cosine", group, pair] = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    close(figures(models, diagnostics.correlation), expected)
    assert 0.1 < expected["pearson", "all", ("alpha", "beta")] < 0.3  # 0.25 of 1.25 is shared


def test_sign_agreement(models: list[Checkpoint]) -> None:
    _, changes = deltas(models)
    expected: Found = {}
    for group, names in groups(models).items():
        for i, j in combinations(range(3), 2):
            x, y = (joined(changes[k], names) for k in (i, j))
            both = (x != 0) & (y != 0)
            if both.any():
                agree = float((np.sign(x) == np.sign(y))[both].mean())
                expected["sign_agreement", group, (MODELS[i], MODELS[j])] = agree
    assert ("sign_agreement", "layer 1", ("alpha", "gamma")) not in expected
    close(figures(models, diagnostics.sign_agreement), expected)


def test_changed(models: list[Checkpoint]) -> None:
    _, changes = deltas(models)
    expected: Found = {
        ("changed", group, (model,)): float((joined(change, names) != 0).mean())
        for group, names in groups(models).items()
        for model, change in zip(MODELS, changes, strict=True)
    }
    assert 0.3 < expected["changed", "all", ("gamma",)] < 0.7 < expected["changed", "all", ("alpha",)]
    close(figures(models, diagnostics.changed), expected)


def test_rounding_to_bfloat16_shows_in_changed(models: list[Checkpoint], tmp_path: Path) -> None:
    """A change of 1e-5 is lost for nearly every weight: bfloat16 keeps 8 bits, so a step near 0.02 is some 1e-4."""
    base = {name: torch.from_numpy(t).bfloat16() for name, t in load_file(models[0].path / "model.safetensors").items()}
    from safetensors.torch import save_file as save

    for name, change in (("base", 0.0), ("moved", 1e-5)):
        shutil.copytree(models[0].path, tmp_path / name)
        save({key: (t.float() + change).bfloat16() for key, t in base.items()}, tmp_path / name / "model.safetensors")
    pair = [Checkpoint(name, tmp_path / name, name) for name in ("base", "moved")]
    found = figures(pair, diagnostics.changed)
    stored = [torch.cat([(t.float() + c).bfloat16().flatten() for t in base.values()]) for c in (0.0, 1e-5)]
    assert found["changed", "all", ("moved",)] == pytest.approx(float((stored[0] != stored[1]).double().mean()))
    assert found["changed", "all", ("moved",)] < 0.2


def test_big_tensors_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch, models: list[Checkpoint]) -> None:
    whole = diagnose(models, *diagnostics.register_diagnostics())
    monkeypatch.setattr(diagnostics, "_CHUNK_BYTES", 160)  # five values of four rows
    parts = diagnose(models, *diagnostics.register_diagnostics())
    assert [(one.metric, one.group, one.models) for one in parts] == [
        (one.metric, one.group, one.models) for one in whole
    ]
    for one, other in zip(parts, whole, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-10)


def test_figures_of_models_that_did_not_move_or_moved_alike(models: list[Checkpoint]) -> None:
    base, alpha = models[:2]
    still = [base, Checkpoint("still", base.path, "still"), alpha, Checkpoint("twin", alpha.path, "twin")]
    found = diagnose(still, *diagnostics.register_diagnostics())
    pairs = {(one.metric, one.models, one.value) for one in found if len(one.models) == 2}
    assert pairs == {(metric, ("alpha", "twin"), 1.0) for metric in ("pearson", "cosine", "sign_agreement")}
    own = {one.value for one in found if one.models == ("still",)}
    assert own == {0.0}


def test_a_constant_change_has_no_correlation() -> None:
    """The same step for every weight: its variance is rounding, and Pearson of rounding means nothing."""
    deltas = torch.stack([torch.full((1000,), 0.1), torch.linspace(-1, 1, 1000)])
    t = TensorStack("w", torch.zeros(1000), deltas, torch.ones(2, 1), ("a", "b"))
    finish = diagnostics.correlation.finish
    assert finish is not None
    assert [metric for metric, _, _ in finish(diagnostics.correlation.function(t), ("a", "b"))] == ["cosine"]


def test_every_diagnostic_documents_its_figures(models: list[Checkpoint]) -> None:
    for component in diagnostics.register_diagnostics():
        text = (component.function.__doc__ or "") + component.name
        for metric in {one.metric for one in diagnose(models, component)}:
            assert re.search(rf"\b{metric}\b", text), (component.name, metric)
