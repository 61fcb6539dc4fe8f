"""The built-in merge methods against mergekit itself, and against their formulas in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from mixmerge import CheckpointError, Component, TensorStack
from mixmerge.plugins import _thinning as thinning
from mixmerge.plugins import mergers

SHAPES = [(24, 40), (64,), (3, 8, 10), ()]
WEIGHTS = [(0.3, 0.7), (1.0, 1.0), (0.5, -0.2), (0.0, 1.0)]
ALL = [mergers.linear, mergers.ties, mergers.dare_linear, mergers.dare_ties, mergers.della, mergers.della_linear]


def stack(shape: Sequence[int] = (24, 40), weights: Sequence[float] = (0.3, 0.7), **more: Any) -> TensorStack:
    """Random base and deltas at the scale of real ones (weights near 0.1, changes near 0.01)."""
    draw = torch.Generator().manual_seed(len(weights))
    base = 0.1 * torch.randn(tuple(shape), generator=draw)
    experts = base + 0.01 * torch.randn((len(weights), *shape), generator=draw)
    column = torch.tensor(weights).reshape(-1, *[1] * len(shape))
    ids = tuple(f"expert {index}" for index in range(len(weights)))
    settings = {"name": "w", "experts": ids, "seed": 7} | more
    return TensorStack(base=base, deltas=experts - base, weights=column, **settings)


def graded(weights: Sequence[float] = (0.3, 0.7), rows: int = 24, width: int = 40) -> TensorStack:
    """As `stack`, but every row of a delta holds 1 to `width` 1024ths in some order and with some signs: differences
    are exact, and no two magnitudes of a row agree in their first nine bits."""
    draw = np.random.default_rng(0)
    base = draw.integers(-200, 200, (rows, width)) / 1024
    sizes = draw.permuted(np.tile(np.arange(1, width + 1), (len(weights), rows, 1)), axis=2) / 1024
    deltas = sizes * draw.choice([-1, 1], sizes.shape)
    plain = stack((rows, width), weights)
    return TensorStack("w", torch.tensor(base).float(), torch.tensor(deltas).float(), plain.weights, plain.experts, 7)


def run(component: Component, t: TensorStack, **given: Any) -> torch.Tensor:
    """What the core does: merge, with defaults filled in and everything validated."""
    assert component.problems(given) == []
    result = component.function(t, **component.complete(given))
    assert isinstance(result, torch.Tensor)
    return result


def mergekit(method: str, t: TensorStack, *, base: bool = True, **parameters: Any) -> np.ndarray:
    from mergekit.merge_methods import merge_tensors

    inputs = [*([t.base] if base else []), *(t.base + t.deltas)]
    merged = merge_tensors(
        inputs, method, parameters={"weight": weights_of(t), **parameters}, base_index=0 if base else None
    )
    return np.asarray(merged)


def weights_of(t: TensorStack) -> list[float]:
    return [float(weight) for weight in t.weights.flatten()]


def wide(tensor: torch.Tensor) -> np.ndarray:
    return np.asarray(tensor.double())


# ---- against mergekit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [*WEIGHTS, (0.2, 0.3, 0.4)])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_is_mergekits(shape: tuple[int, ...], normalize: bool, weights: tuple[float, ...]) -> None:
    t = stack(shape, weights)
    expected = mergekit("linear", t, base=False, normalize=normalize)
    np.testing.assert_allclose(run(mergers.linear, t, normalize=normalize), expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("weights", [*WEIGHTS, (0.2, 0.3, 0.4)])
@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_ties_is_mergekits(shape: tuple[int, ...], density: float, weights: tuple[float, ...]) -> None:
    t = stack(shape, weights)
    np.testing.assert_allclose(
        run(mergers.ties, t, density=density), mergekit("ties", t, density=density), rtol=1e-6, atol=1e-7
    )
    for given, theirs in (
        ({"normalize": False}, {"normalize": False}),
        ({"scale": 1.3}, {"lambda": 1.3}),
        ({"rescale": "l1"}, {"rescale": True}),
    ):
        expected = mergekit("ties", t, density=density, **theirs)
        np.testing.assert_allclose(run(mergers.ties, t, density=density, **given), expected, rtol=1e-6, atol=1e-7)


MASKED = [("dare_linear", "bernoulli"), ("dare_ties", "bernoulli"), ("della", "rank"), ("della_linear", "rank")]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("normalize", [None, True, False])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize(("name", "kind"), MASKED)
def test_random_methods_are_mergekits_given_the_same_mask(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str, rescale: bool, normalize: bool | None, weights: Any
) -> None:
    """mergekit runs whole, with our random numbers behind its `torch.bernoulli`: it then has to draw our mask."""
    t = graded(weights=weights)
    drawn = iter([t.draws(i).to(torch.float64) for i in range(2)])
    monkeypatch.setattr(
        torch, "bernoulli", lambda chance: (next(drawn) < (chance.double() * 65536).round()).to(chance.dtype)
    )
    theirs: dict[str, Any] = {"density": 0.4, "rescale": rescale, "lambda": 1.2}
    ours: dict[str, Any] = {"density": 0.4, "rescale": "l1" if rescale else "none", "scale": 1.2}
    for values in (theirs, ours):
        values |= {"normalize": normalize} if normalize is not None else {}
        values |= {"epsilon": 0.15} if kind == "rank" else {}
    expected = mergekit(name, t, **theirs)
    monkeypatch.undo()
    component = next(one for one in ALL if one.name == name)
    np.testing.assert_allclose(run(component, t, **ours), expected, rtol=2e-6, atol=2e-7)


def test_defaults_are_mergekits() -> None:
    from mergekit.merge_methods import get

    names = {"lambda": "scale"}
    for component in ALL:
        theirs = {names.get(p.name, p.name): p.default for p in get(component.name).spec.parameters}
        for name, parameter in component.parameters.items():
            if name == "per":  # as published; mergekit has no such choice
                assert parameter.default == "tensor"
            elif name == "density":  # on purpose: mergekit's 1.0 thins out nothing
                assert parameter.required
            elif name == "rescale":
                assert parameter.default == ("l1" if theirs["rescale"] else "none")
            else:
                assert (component.name, name, parameter.default) == (component.name, name, theirs[name])


# ---- against the papers' formulas -----------------------------------------------------------------------------------


def elected(deltas: np.ndarray, weights: np.ndarray, normalize: bool) -> np.ndarray:
    """TIES, elect and merge, one weight at a time."""
    result = np.zeros(deltas.shape[1:])
    for place in np.ndindex(*result.shape):
        votes = weights * deltas[(slice(None), *place)]
        sign = 1.0 if votes.sum() >= 0 else -1.0
        agree = np.sign(votes) == sign
        total = weights[agree].sum()
        if agree.any():
            result[place] = votes[agree].sum() / (total if normalize and total != 0 else 1.0)
    return result


@pytest.mark.parametrize("weights", WEIGHTS)
def test_ties_by_hand(weights: tuple[float, float]) -> None:
    t = stack((6, 10), weights)
    deltas, kept = wide(t.deltas), 0.3
    for delta in deltas:
        smallest = np.argsort(np.abs(delta), axis=None)[: delta.size - int(kept * delta.size)]
        delta.flat[smallest] = 0
    expected = wide(t.base) + 0.8 * elected(deltas, np.array(weights), True)
    np.testing.assert_allclose(run(mergers.ties, t, density=kept, scale=0.8), expected, rtol=1e-5, atol=1e-7)


def settings(component: Component) -> dict[str, Any]:
    return {"density": 0.5} if "density" in component.parameters else {}


def left(component: Component, t: TensorStack, **given: Any) -> torch.Tensor:
    """What a method leaves of each expert's change: with the others' weights at zero, it is what is added."""
    found = []
    bare = replace(t, base=torch.zeros_like(t.base))
    for weights in torch.eye(len(t.experts)):
        alone = replace(bare, weights=weights.reshape(t.weights.shape))
        found.append(run(component, alone, normalize=False, **given))
    return torch.stack(found)


def mask_of(component: Component, t: TensorStack, **given: Any) -> np.ndarray:
    return np.asarray(left(component, t, rescale="none", **given) != 0)


def test_dare_by_hand() -> None:
    """Paper, equations 2-3: what stays is divided by the probability of staying."""
    t = stack()
    mask = mask_of(mergers.dare_linear, t, density=0.25)
    dropped = wide(t.deltas) * mask / 0.25
    summed = np.tensordot(np.array([0.3, 0.7]), dropped, 1)
    found = run(mergers.dare_linear, t, density=0.25, rescale="density")
    np.testing.assert_allclose(found, wide(t.base) + summed, rtol=1e-5, atol=1e-6)
    found = run(mergers.dare_ties, t, density=0.25, rescale="density")
    np.testing.assert_allclose(
        found, wide(t.base) + elected(dropped, np.array([0.3, 0.7]), False), rtol=1e-5, atol=1e-6
    )


def test_della_by_hand() -> None:
    """Paper, section 3.1: by rank within a row, and what stays is divided by its own probability of staying."""
    t = graded(rows=12, width=16)
    mask = mask_of(mergers.della, t, density=0.5, epsilon=0.2)
    ranks = np.argsort(np.argsort(np.abs(wide(t.deltas)), axis=-1), axis=-1)
    pruned = wide(t.deltas) * mask / (0.3 + 0.4 * ranks / 15)
    found = run(mergers.della, t, density=0.5, epsilon=0.2, rescale="density")
    # probabilities are multiples of 1/65536: the least of them, 0.3, is off by 3e-5 of itself at most
    np.testing.assert_allclose(found, wide(t.base) + elected(pruned, np.array([0.3, 0.7]), True), rtol=5e-5, atol=5e-6)


@pytest.mark.parametrize("component", [mergers.dare_linear, mergers.della])
def test_l1_rescaling_keeps_the_l1_norm(component: Component) -> None:
    t = stack()
    kept = wide(left(component, t, density=0.5))
    for before, after in zip(wide(t.deltas), kept, strict=True):
        assert np.abs(after).sum() == pytest.approx(np.abs(before).sum(), rel=1e-6)
        assert 0 < (after == 0).sum() < after.size


# ---- the masks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_dare_keeps_each_value_with_probability_density(density: float) -> None:
    t = stack((400, 500))
    for mask in mask_of(mergers.dare_linear, t, density=density):
        assert abs(mask.mean() - density) < 4 * (density * (1 - density) / mask.size) ** 0.5


def test_della_keeps_by_rank_within_each_row() -> None:
    """20 000 rows of 8: each rank's share of kept values lies within 4 standard errors of its probability."""
    t = stack((20_000, 8))
    ranks = np.argsort(np.argsort(np.abs(t.deltas.numpy()), axis=-1), axis=-1)
    masks = mask_of(mergers.della, t, density=0.6, epsilon=0.3)
    for rank in range(8):
        chance = 0.3 + 0.6 * rank / 7
        for mask, rank_of in zip(masks, ranks, strict=True):
            share = mask[rank_of == rank].mean()
            assert abs(share - chance) < 4 * (chance * (1 - chance) / 20_000) ** 0.5


@pytest.mark.parametrize("component", [mergers.dare_linear, mergers.della])
def test_a_mask_depends_on_seed_place_and_name_alone(component: Component) -> None:
    t = stack()
    mask = partial(mask_of, component, density=0.5)
    both = mask(t)
    elsewhere = stack(experts=("/one/path", "/another"), seed=7)
    np.testing.assert_array_equal(mask(elsewhere), both)
    alone = TensorStack("w", t.base, t.deltas[:1], t.weights[:1], ("expert 0",), 7)
    np.testing.assert_array_equal(mask(alone), both[:1])
    np.testing.assert_array_equal(mask(stack(weights=(9.0, -1.0))), both)
    torch.manual_seed(1)
    mask(stack((5, 5), name="another tensor"))
    np.testing.assert_array_equal(mask(t), both)
    for other in (stack(seed=8), stack(name="v")):
        assert 0.4 < (mask(other) == both).mean() < 0.6
    assert 0.4 < (both[0] == both[1]).mean() < 0.6


def test_of_equal_magnitudes_those_that_stay_are_spread_evenly() -> None:
    deltas = torch.tensor([[9.0, 1.0, -1.0, 1.0, 0.0, 1.0, -1.0, 1.0, 9.0, 0.0]])
    t = TensorStack("w", torch.zeros(10), deltas, torch.ones(1, 1), ("e",))
    kept = left(mergers.ties, t, density=0.5)  # both nines, and three of the six ones: every second
    assert kept.tolist() == [[9.0, 1.0, 0.0, 1.0, 0.0, 0.0, -1.0, 0.0, 9.0, 0.0]]


def test_equal_magnitudes_are_ranked_from_either_side_in_turn() -> None:
    deltas = torch.tensor([[1.0, -2.0, 1.0, -1.0, 1.0, 0.0]] * 2).reshape(1, 2, 6)
    t = TensorStack("w", torch.zeros(2, 6), deltas, torch.ones(1, 1, 1), ("e",))
    chances = thinning.chances(t, density=(0.5,), epsilon=(0.25,))
    ranks = [[1, 5, 2, 3, 4, 0], [4, 5, 3, 2, 1, 0]]  # zero first, then the ones, then the two
    np.testing.assert_allclose(chances[0], 0.25 + 0.5 * np.array(ranks) / 5, atol=1e-5)


def test_ranks_by_nine_bits_are_near_the_exact_ones() -> None:
    t = stack((500, 300))
    chances = thinning.chances(t, density=(0.5, 0.5), epsilon=(0.4, 0.4))
    ranks = np.argsort(np.argsort(np.abs(wide(t.deltas)), axis=-1), axis=-1)
    off = np.abs(chances.numpy() - (0.1 + 0.8 * ranks / 299))
    assert off.max() < 0.8 * 6 / 299  # six places at most, in a row of 300
    assert off.mean() < 0.001


def test_experts_may_have_densities_of_their_own() -> None:
    t = stack((100, 100))
    first, second = mask_of(mergers.ties, t, density=[0.2, 0.7])
    assert (first.sum(), second.sum()) == (2000, 7000)
    for component, more in ((mergers.dare_ties, {}), (mergers.della, {"epsilon": [0.1, 0.2]})):
        first, second = mask_of(component, t, density=[0.2, 0.7], **more)
        assert (first.mean(), second.mean()) == (pytest.approx(0.2, abs=0.02), pytest.approx(0.7, abs=0.02))
    assert "0.45 to 1.15" in mergers.della.problems({"density": [0.2, 0.8], "epsilon": [0.1, 0.35]})[0][1]


def test_nothing_moves_when_the_experts_are_the_base() -> None:
    t = stack()
    still = t.with_deltas(torch.zeros_like(t.deltas))
    for component in ALL:
        given = settings(component)
        assert torch.equal(run(component, still, **given), t.base)


def test_a_row_of_one_value_and_an_empty_tensor() -> None:
    for component in ALL:
        given = settings(component)
        assert torch.isfinite(run(component, stack((5, 1)), **given)).all()
        assert run(component, stack((0, 4)), **given).shape == (0, 4)


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("component", [mergers.linear, mergers.dare_linear, mergers.della_linear])
def test_weights_that_sum_to_zero_cannot_be_normalised(component: Component) -> None:
    given: dict[str, Any] = settings(component)
    with pytest.raises(CheckpointError, match=r"the weights 0\.5, -0\.5 sum to zero"):
        run(component, stack(weights=(0.5, -0.5)), normalize=True, **given)
    assert torch.isfinite(run(component, stack(weights=(0.5, -0.5)), normalize=False, **given)).all()


@pytest.mark.parametrize(
    ("component", "given", "message"),
    [
        (mergers.ties, {}, "needs 'density'"),
        (mergers.ties, {"density": 0.0}, "greater than 0"),
        (mergers.dare_ties, {"density": 1.1}, "less than or equal to 1"),
        (mergers.ties, {"density": [0.5, 1.5]}, "less than or equal to 1, not 1.5 in [0.5, 1.5]"),
        (mergers.ties, {"density": 0.5, "rescale": "density"}, "'l1' or 'none'"),
        (mergers.linear, {"density": 0.5}, "unknown parameter 'density'"),
        (mergers.della, {"density": 0.9}, "density ± epsilon must lie in (0, 1), not 0.75 to 1.05"),
        (mergers.della_linear, {"density": 0.1, "epsilon": 0.1}, "must lie in (0, 1), not 0 to 0.2"),
        (mergers.della, {"density": 1.0, "epsilon": 0.1}, "must lie in (0, 1)"),
    ],
)
def test_parameters_out_of_range_are_found_before_work(component: Component, given: Any, message: str) -> None:
    (problem,) = component.problems(given)
    assert message in problem[1]


def test_every_method_says_where_it_comes_from() -> None:
    hook: Callable[[], Sequence[Component]] = mergers.register_mergers
    assert [component.name for component in hook()] == [component.name for component in ALL]
    for component in ALL:
        assert component.source.startswith("arXiv:")
        assert all(name in (component.function.__doc__ or "") for name in component.parameters)


@pytest.mark.parametrize("component", ALL, ids=lambda component: component.name)
def test_memory_in_another_order_gives_the_same(component: Component) -> None:
    t = stack()
    given: dict[str, Any] = settings(component)
    turned = t.with_deltas(t.deltas.transpose(1, 2).contiguous().transpose(1, 2))
    assert not turned.deltas.is_contiguous()
    assert torch.equal(run(component, turned, **given), run(component, t.with_deltas(t.deltas), **given))
