"""The mergekit adapter and the configurations it writes, against mergekit's own `run_merge` on whole models."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from mixmerge import Checkpoint, CheckpointError, Component, TensorStack, checkpoint, merging, tensors
from mixmerge.checkpoint import merged
from mixmerge.plugins import _mergekit_exact as exact
from mixmerge.plugins import mergekit, mergers
from mixmerge.plugins.mergekit import align_tokens, compat, parameters_of
from mixmerge.registry import Registry
from mixmerge.types import Derivation

ADAPTER = mergekit.mergekit
BUILT_IN = {component.name: component for component in mergers.register_mergers()}


@pytest.fixture(scope="module")
def paths(tiny_model_dir: Callable[..., Path]) -> list[Path]:
    return [tiny_model_dir(seed=seed) for seed in range(4)]


def derivation(
    component: Component, base: Path, *experts: Path, weights: tuple[float, ...] = (0.3, 0.7), **given: Any
) -> Derivation:
    """As the core builds it: parameters validated, completed, and bound."""
    assert component.problems(given) == []
    values = component.complete(given)
    first = {name: values[name] for name in component.prepare_parameters}
    rest = {name: value for name, value in values.items() if name not in first}
    return Derivation(
        stored(base),
        tuple(stored(path) for path in experts),
        weights,
        3,
        partial(component.function, **rest),
        partial(component.prepare, **first) if component.prepare else None,
        method=component.name,
        parameters=values,
    )


def stored(path: Path) -> Checkpoint:
    return Checkpoint(path.name, path, path.name)


def ours(found: Derivation) -> dict[str, np.ndarray]:
    return {
        name: tensor.numpy()
        for name, tensor in tensors(Checkpoint("merge", found.base.path, "m", found), rounded=False)
    }


def theirs(text: str, out: Path) -> dict[str, np.ndarray]:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), str(out), MergeOptions(quiet=True))
    return dict(load_file(out / "model.safetensors"))


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys() - {"lm_head.weight"}  # tied; mergekit writes it a second time
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=2e-6, atol=2e-7, err_msg=name)


def config(base: Path | None, *models: tuple[Path, dict[str, float]], method: str, **parameters: Any) -> str:
    """A mergekit configuration as its documentation writes it, not by the code under test."""
    found: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": str(path), "parameters": own} for path, own in models],
        "parameters": parameters,
        "dtype": "float32",
    }
    return yaml.safe_dump(found | ({"base_model": str(base)} if base else {}))


WEIGHTED = ({"weight": 0.3}, {"weight": 0.7})
PLAIN: tuple[dict[str, float], ...] = ({}, {})
CASES: list[tuple[str, dict[str, Any], bool, tuple[dict[str, float], ...]]] = [
    ("task_arithmetic", {"lambda": 1.2, "normalize": True}, True, WEIGHTED),
    ("breadcrumbs", {"density": 0.6, "gamma": 0.05}, True, WEIGHTED),
    ("breadcrumbs_ties", {"density": 0.6}, True, WEIGHTED),
    ("model_stock", {}, True, PLAIN),
    ("model_stock", {"filter_wise": True}, True, PLAIN),
    ("sce", {"select_topk": 0.4}, True, PLAIN),
    ("nuslerp", {}, True, WEIGHTED),
    ("nuslerp", {"nuslerp_flatten": False}, False, WEIGHTED),
    ("multislerp", {}, False, WEIGHTED),
    ("ties", {"density": 0.4}, True, WEIGHTED),
    ("karcher", {"max_iter": 5}, False, PLAIN),
    ("ram", {}, True, PLAIN),
]


@pytest.mark.parametrize(("method", "options", "with_base", "own"), CASES)
def test_a_whole_model_is_what_mergekit_makes(
    paths: list[Path], tmp_path: Path, method: str, options: dict[str, Any], with_base: bool, own: Any
) -> None:
    base, one, two, _ = paths
    found = derivation(ADAPTER, base, one, two, method=method, options=options, with_base=with_base)
    text = config(base if with_base else None, (one, own[0]), (two, own[1]), method=method, **options)
    expected = theirs(text, tmp_path / "theirs")
    same(ours(found), expected)
    written = mergekit.to_yaml(found)
    assert written is not None
    same(theirs(written, tmp_path / "again"), expected)


@pytest.mark.parametrize(
    ("method", "options"), [("slerp", {"t": 0.3}), ("nearswap", {"t": 0.002}), ("arcee_fusion", {})]
)
def test_methods_of_two_models_take_base_and_expert_or_two_experts(
    paths: list[Path], tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    base, one, two, _ = paths
    single = derivation(ADAPTER, base, one, weights=(1.0,), method=method, options=options)
    expected = theirs(config(base, (base, {}), (one, {}), method=method, **options), tmp_path / "single")
    same(ours(single), expected)
    pair = derivation(ADAPTER, base, one, two, method=method, options=options, with_base=False)
    expected = theirs(config(one, (one, {}), (two, {}), method=method, **options), tmp_path / "pair")
    same(ours(pair), expected)
    for number, found in enumerate((single, pair)):
        text = mergekit.to_yaml(found)
        assert text is not None
        same(ours(found), theirs(text, tmp_path / f"again{number}"))
    three = derivation(ADAPTER, base, one, two, method=method, options=options)
    with pytest.raises(CheckpointError, match=rf"mergekit {method}, model.*: .*2 inputs.*; got 3") as caught:
        ours(three)
    assert "2 experts, with_base: true" in caught.value.hint


def test_an_option_may_differ_between_experts(paths: list[Path], tmp_path: Path) -> None:
    base, one, two, _ = paths
    found = derivation(ADAPTER, base, one, two, method="breadcrumbs", options={"density": [0.2, 0.8]})
    own = [{"weight": 0.3, "density": 0.2}, {"weight": 0.7, "density": 0.8}]
    expected = theirs(config(base, (one, own[0]), (two, own[1]), method="breadcrumbs"), tmp_path / "theirs")
    same(ours(found), expected)
    text = mergekit.to_yaml(found)
    assert text is not None
    same(theirs(text, tmp_path / "again"), expected)


def test_random_methods_do_not_depend_on_the_global_state_nor_leave_a_trace() -> None:
    draw = torch.Generator().manual_seed(0)
    base, deltas = torch.randn(30, 20, generator=draw), torch.randn(2, 30, 20, generator=draw)
    t = TensorStack("w", base, deltas, torch.tensor([0.5, 0.5]).reshape(2, 1, 1), ("a", "b"), 1)
    merge = partial(ADAPTER.function, method="dare_linear", options={"density": 0.5})
    torch.manual_seed(1)
    first, following = merge(t), torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), following)
    assert torch.equal(merge(t), first)
    assert not torch.equal(merge(TensorStack("v", base, deltas, t.weights, t.experts, 1)), first)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "tise"}, "mergekit has no method 'tise'; allowed: arcee_fusion, breadcrumbs"),
        ({"method": "passthrough"}, "'passthrough' is not available: it copies one model"),
        ({"method": "breadcrumbs", "options": {"gama": 0.1}}, "no option 'gama'; allowed: int8_mask, normalize, "),
        ({"method": "breadcrumbs", "options": {"gamma": "much"}}, "option 'gamma': input should be a valid number"),
        ({"method": "breadcrumbs", "options": {"density": [0.1, "x"]}}, "option 'density': .* not 'x'"),
        ({"method": "breadcrumbs", "options": {"normalize": [True]}}, "option 'normalize' takes one value"),
        ({"method": "slerp"}, "slerp needs option 't'"),
        ({"method": "nuslerp", "options": {"weight": 0.5}}, "'weight' comes from the recipe's `weights`"),
        ({"method": "arcee_fusion", "options": {"t": 0.5}}, "arcee_fusion has no option 't'; allowed: none"),
        ({"options": {}}, "needs 'method'"),
    ],
)
def test_bad_settings_are_found_before_work(given: dict[str, Any], message: str) -> None:
    ((_, what, _),) = ADAPTER.problems(given)
    assert message in what or re.search(message, what)


# ---- to_yaml for the built-in methods -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("linear", {}),
        ("linear", {"normalize": False}),
        ("ties", {"density": 0.5}),
        ("ties", {"density": 0.3, "normalize": False, "scale": 1.3, "rescale": "l1"}),
        ("dare_linear", {"density": 1.0}),  # keeps everything: no mask to draw
        ("dare_ties", {"density": 1.0, "scale": 0.7}),
    ],
)
def test_mergekit_repeats_a_built_in_merge(paths: list[Path], tmp_path: Path, name: str, given: dict[str, Any]) -> None:
    base, *experts = paths
    found = derivation(BUILT_IN[name], base, *experts, weights=(0.2, 0.3, 0.4), **given)
    text = mergekit.to_yaml(found)
    assert text is not None
    same(ours(found), theirs(text, tmp_path / "out"))


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_a_random_merge_is_repeated_by_mixmerge_and_says_that_mergekits_masks_differ(
    paths: list[Path], tmp_path: Path, name: str
) -> None:
    base, one, two, _ = paths
    found = derivation(BUILT_IN[name], base, one, two, density=0.5)
    text = mergekit.to_yaml(found)
    assert text is not None
    (tmp_path / "c.yml").write_text(text)
    read = merging.read(tmp_path / "c.yml", parameters_of)
    again = merging.prepare(read, Registry([]), merging.Mergekit(compat, align_tokens), seed=found.seed)
    assert merging.write(again, read, tmp_path / "again") == checkpoint.digest(Checkpoint("m", base, "m", found))
    assert text.startswith("# mixmerge merge FILE OUT --seed 3 gives these weights; mergekit draws other random masks")
    mine, repeated = ours(found), theirs(text, tmp_path / "out")
    first = load_file(base / "model.safetensors")
    for key in ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"):
        lengths = [np.abs(model[key] - first[key]).sum() for model in (mine, repeated)]
        assert not np.array_equal(mine[key], repeated[key])
        assert lengths[0] == pytest.approx(lengths[1], rel=0.15)  # another draw of the same distribution


def test_no_configuration_where_mergekit_cannot(paths: list[Path]) -> None:
    base, one, two, _ = paths
    by_density = derivation(BUILT_IN["dare_linear"], base, one, two, density=0.5, rescale="density")
    assert mergekit.to_yaml(by_density) is None
    foreign = Component("merger", "sign_mean", "1", lambda t: t.base)
    assert mergekit.to_yaml(derivation(foreign, base, one, two)) is None
    merge = Checkpoint("merge", base, "m", derivation(BUILT_IN["linear"], base, one, two))
    nested = Derivation(stored(base), (merge, stored(one)), (0.5, 0.5), 0, lambda t: t.base, method="linear")
    assert mergekit.to_yaml(nested) is None
    assert mergekit.config_file(by_density) == {}


def test_the_configuration_keeps_the_experts_dtype(tiny_model_dir: Callable[..., Path], tmp_path: Path) -> None:
    base, one, two = (tiny_model_dir(seed=seed, dtype="bfloat16") for seed in range(3))
    found = derivation(BUILT_IN["linear"], base, one, two)
    files = mergekit.config_file(found)
    assert list(files) == ["mergekit_config.yml"]
    settings = yaml.safe_load(files["mergekit_config.yml"])
    assert (settings["dtype"], settings["out_dtype"]) == ("float32", "bfloat16")
    assert all(component.files is mergekit.config_file for component in (*BUILT_IN.values(), ADAPTER))


# ---- compat ---------------------------------------------------------------------------------------------------------

EXACT: list[tuple[str, dict[str, Any], bool]] = [
    ("linear", {}, False),
    ("linear", {"normalize": False}, False),
    ("task_arithmetic", {"lambda": 1.3}, True),
    ("ties", {"density": 0.4}, True),
    ("ties", {"density": [0.2, 0.7], "rescale": True, "normalize": False, "int8_mask": True}, True),
    ("breadcrumbs", {"density": 0.6, "gamma": 0.05}, True),
    ("breadcrumbs_ties", {"density": 0.6}, True),
    ("dare_linear", {"density": 0.5}, True),
    ("dare_ties", {"density": 0.3, "rescale": False}, True),
    ("della", {"density": 0.5, "epsilon": 0.1}, True),
    ("della_linear", {"density": 0.5}, True),
    ("sce", {"select_topk": 0.4}, True),
    ("nuslerp", {}, True),
    ("multislerp", {}, False),
    ("model_stock", {}, True),
]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", None])
@pytest.mark.parametrize(("method", "options", "with_base"), EXACT)
def test_compat_gives_mergekits_bits(
    tiny_model_dir: Callable[..., Path],
    tmp_path: Path,
    method: str,
    options: dict[str, Any],
    with_base: bool,
    dtype: str | None,
) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    base, one, two = (tiny_model_dir(seed=seed, dtype="bfloat16") for seed in range(3))
    points = [(0.3, 0.7), (1.0, -0.2)]
    derivations = [
        mergekit.compat(
            stored(base) if with_base else None,
            [stored(one), stored(two)],
            weights,
            method=method,
            options=options,
            dtype=dtype,
            seed=11,
        )
        for weights in points
    ]
    together = dict(merged(derivations, rounded=False))
    for number, weights in enumerate(points):
        own = [
            {key: value[row] if isinstance(value, list) else value for key, value in options.items()}
            | ({"weight": weights[row]} if method not in ("model_stock", "sce") else {})
            for row in range(2)
        ]
        text = config(base if with_base else None, (one, own[0]), (two, own[1]), method=method, **options_of(options))
        setting = yaml.safe_load(text) | {"dtype": dtype}
        run_merge(
            MergeConfiguration.model_validate(setting),
            str(tmp_path / str(number)),
            MergeOptions(quiet=True, random_seed=11, write_model_card=False),
        )
        for name, expected in load_torch(tmp_path / str(number) / "model.safetensors").items():
            if name != "lm_head.weight":  # tied; mergekit writes it a second time
                assert torch.equal(bits(together[name][number].to(expected.dtype)), bits(expected)), name


def options_of(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if not isinstance(value, list)}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32)


def test_compat_keeps_the_sign_of_zero() -> None:
    """-0.0 in the base, where nothing is added: mergekit's own sum decides."""
    base = torch.tensor([-0.0, 0.0, -0.0, 1.0]).repeat(64).reshape(16, 16).to(torch.bfloat16)
    experts = [base + delta for delta in (torch.zeros(16, 16).bfloat16(), -torch.zeros(16, 16).bfloat16())]
    deltas = torch.stack([expert.float() - base.float() for expert in experts])
    t = TensorStack("w", base.float(), deltas, torch.ones(2, 1, 1), ("a", "b"), stored=(base, *experts))
    given = (("density", 0.5), ("weight", [1.0, -1.0]))
    first = partial(exact._thinned, method="ties", given=given[:1], dtype=None, masks=None)
    second = partial(exact._combined, method="ties", given=given, dtype=None, with_base=True)
    from mergekit.merge_methods import merge_tensors

    expected = merge_tensors(
        [base, *experts], "ties", parameters={"density": 0.5, "weight": {1: 1.0, 2: -1.0}}, base_index=0
    )
    assert torch.equal(bits(second(replace(t, deltas=first(t)))), bits(expected))
