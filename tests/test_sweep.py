"""The sweep engine on whole checkpoints: against formulas in float64, and the same bytes in any order of work."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mixmerge import Checkpoint, CheckpointError, Component, TensorStack, checkpoint, rowwise
from mixmerge.checkpoint import kernels, parts, reading
from mixmerge.plugins import _merge_kernels, mergers
from mixmerge.plugins import _thinning as thinning
from mixmerge.types import Derivation

METHODS = {component.name: component for component in mergers.register_mergers()}
SHAPES = {"wide": (500, 700), "long": (2400, 150), "cube": (70, 60, 70), "bias": (500,), "one": (), "none": (0, 3)}
GRID: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("ties", {"density": 0.3}),
    ("ties", {"density": 0.3, "per": "model", "scale": 1.2}),
    ("dare_linear", {"density": 0.5}),
    ("dare_ties", {"density": 0.4, "rescale": "density", "normalize": True}),
    ("della", {"density": 0.5, "epsilon": 0.1}),
    ("della_linear", {"density": 0.5, "epsilon": 0.2, "rescale": "density"}),
]


def make(path: Path, seed: int, *, like: Path | None = None, files: int = 1) -> Path:
    """A model of tensors that are larger than a part; with `like`, one fine-tuned from it. bfloat16: many ties."""
    draw = torch.Generator().manual_seed(seed)
    found = {name: 0.02 * torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
    if like:
        base = read(like)
        found = {name: base[name] + 0.05 * tensor for name, tensor in found.items()}
    save(path, {name: tensor.to(torch.bfloat16) for name, tensor in found.items()}, files)
    return path


def save(path: Path, tensors: dict[str, torch.Tensor], files: int) -> None:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    if files == 1:
        save_file(tensors, path / "model.safetensors")
        return
    weight_map = {name: f"{hash_of(name, files)}.safetensors" for name in tensors}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def hash_of(name: str, files: int) -> int:
    return hashlib.sha256(name.encode()).digest()[0] % files


def read(path: Path) -> dict[str, torch.Tensor]:
    files = sorted(path.glob("*.safetensors"))
    return {name: tensor.float() for file in files for name, tensor in load_file(file).items()}


def point(
    trio: Sequence[Path], method: str | Component, weights: Sequence[float] = (0.3, 0.7), seed: int = 5, **given: Any
) -> Checkpoint:
    component = METHODS[method] if isinstance(method, str) else method
    assert component.problems(given) == []
    values = component.complete(given)
    first = {name: values[name] for name in component.prepare_parameters}
    rest = {name: value for name, value in values.items() if name not in first}
    base, *experts = (Checkpoint(path.name, path, f"id of {path.name}") for path in trio)
    found = Derivation(
        base,
        tuple(experts),
        tuple(weights),
        seed,
        partial(component.function, **rest),
        partial(component.prepare, **first) if component.prepare else None,
        f"{component.name} {first}",
        component.name,
        values,
    )
    return Checkpoint("merge", base.path, f"{component.name} {values} {weights}", found)


SMALL = 1 << 16  # weights of a part, so that the tensors here have several


@pytest.fixture(scope="module", autouse=True)
def _small_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART", SMALL)
        yield


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    base = make(folder / "base", 0)
    return [base, make(folder / "one", 1, like=base), make(folder / "two", 2, like=base)]


# ---- against the papers, in float64 ---------------------------------------------------------------------------------


def draws(name: str, expert: int, count: int, seed: int = 5) -> np.ndarray:
    digest = hashlib.sha256(f"{seed}/{expert}/{name}".encode()).digest()
    words = [int.from_bytes(digest[at : at + 4], "little") for at in range(0, 16, 4)]
    numbers = []
    for block in range((count + 7) // 8):
        for word in philox([block & 0xFFFFFFFF, block >> 32, *words[2:]], words[:2]):
            numbers += [word & 0xFFFF, word >> 16]
    return np.array(numbers[:count], dtype=np.float64)


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10 as its authors define it, in Python's whole numbers."""
    (a, b, c, d), (one, other) = counter, key
    for step in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        first, second = one + 0x9E3779B9 * step & 0xFFFFFFFF, other + 0xBB67AE85 * step & 0xFFFFFFFF
        a, b, c, d = right >> 32 ^ b ^ first, right & 0xFFFFFFFF, left >> 32 ^ d ^ second, left & 0xFFFFFFFF
    return [a, b, c, d]


def reference(trio: Sequence[Path], method: str, weights: Sequence[float], **given: Any) -> dict[str, np.ndarray]:
    """The merge as the papers write it: a whole model at once, whole tensors, float64."""
    values = METHODS[method].complete(given)
    base, *experts = ({name: t.double().numpy() for name, t in read(path).items()} for path in trio)
    deltas = [{name: expert[name] - base[name] for name in base} for expert in experts]
    thinned = [thin(method, delta, place, **values) for place, delta in enumerate(deltas)]
    result = {}
    for name in base:
        parts_ = np.stack([one[name] for one in thinned])
        change = combine(method, parts_, np.array(weights, dtype=np.float32).astype(float), values.get("normalize"))
        result[name] = base[name] + values.get("scale", 1.0) * change
        # An election that ends even but for the last bits of float32 (0.3 × 7 against 0.7 × 3) may go either way.
        votes = np.tensordot(np.array(weights), parts_, 1), np.tensordot(np.abs(weights), np.abs(parts_), 1)
        even = np.asarray((np.abs(votes[0]) < 1e-6 * votes[1]) & ("linear" not in method))
        assert even.sum() <= 0.002 * even.size
        result[name] = np.where(even, np.nan, result[name])
    return result


def thin(method: str, deltas: dict[str, np.ndarray], expert: int, **given: Any) -> dict[str, np.ndarray]:
    if method == "linear":
        return deltas
    masks: dict[str, np.ndarray] = {}
    chances: dict[str, Any] = {}
    if method == "ties":
        masks = trimmed(deltas, given["density"], given["per"])
    for name, delta in deltas.items() if method != "ties" else ():
        chance = np.full(delta.shape, given["density"])
        if method.startswith("della"):
            chance = by_rank(delta, given["density"], given["epsilon"])
        chances[name] = np.rint(chance * 65536) / 65536
        masks[name] = draws(name, expert, delta.size).reshape(delta.shape) < chances[name] * 65536
    found = {}
    for name, delta in deltas.items():
        kept = delta * masks[name]
        if given["rescale"] == "density":
            kept = kept / (chances[name] if method.startswith("della") else given["density"])
        if given["rescale"] == "l1" and np.abs(kept).sum() > 1e-7:
            kept = kept * np.abs(delta).sum() / np.abs(kept).sum()
        found[name] = kept
    return found


def trimmed(deltas: dict[str, np.ndarray], density: float, per: str) -> dict[str, np.ndarray]:
    """Of equal magnitudes, the nth stays where n's share of those that stay, to the nearest, goes up by one."""
    groups = [sorted(deltas)] if per == "model" else [[name] for name in deltas]
    masks = {}
    for names in groups:
        flat = np.concatenate([np.abs(deltas[name]).ravel() for name in names])
        mask = np.zeros(flat.size, bool)
        if flat.size:
            count = max(1, int(density * flat.size))
            least = np.sort(flat)[-count]
            mask = flat > least
            equal = np.flatnonzero(flat == least)
            share = np.floor(np.arange(len(equal) + 1) * ((count - mask.sum()) / len(equal)) + 0.5)
            mask[equal[np.diff(share) > 0]] = True
            assert mask.sum() == count
        for name, part in zip(
            names, np.split(mask, np.cumsum([deltas[name].size for name in names])[:-1]), strict=True
        ):
            masks[name] = part.reshape(deltas[name].shape)
    return masks


def by_rank(delta: np.ndarray, density: float, epsilon: float) -> np.ndarray:
    turned = delta.reshape(1, -1) if delta.ndim < 2 else np.moveaxis(delta, 1, -1)
    rows = turned.reshape(-1, turned.shape[-1])
    if rows.shape[1] < 2:
        return np.full(delta.shape, density)
    key = np.abs(rows).astype(np.float32).view(np.uint32) >> 15  # nine significant bits
    chance = np.empty(rows.shape)
    for number, row in enumerate(key):
        places = range(len(row)) if number % 2 == 0 else range(len(row) - 1, -1, -1)
        order = sorted(places, key=lambda place: row[place])
        chance[number, order] = density - epsilon + np.arange(len(row)) / (len(row) - 1) * 2 * epsilon
    chance = chance.reshape(turned.shape)
    return chance.reshape(delta.shape) if delta.ndim < 2 else np.moveaxis(chance, -1, 1)


def combine(method: str, deltas: np.ndarray, weights: np.ndarray, normalize: bool | None) -> np.ndarray:
    column = weights.reshape(-1, *[1] * (deltas.ndim - 1))
    votes = column * deltas
    agree = np.ones_like(votes, dtype=bool)
    if method in ("ties", "dare_ties", "della"):
        agree = np.sign(votes) == np.where(votes.sum(0) >= 0, 1, -1)
    total = (column * agree).sum(0)
    return (votes * agree).sum(0) / (np.where(total == 0, 1, total) if normalize else 1)


@pytest.mark.parametrize(("method", "given"), GRID)
@pytest.mark.parametrize("weights", [(0.3, 0.7), (0.8, -0.1)])
def test_a_method_is_what_its_paper_says(
    trio: list[Path], method: str, given: dict[str, Any], weights: tuple[float, ...]
) -> None:
    expected = reference(trio, method, weights, **given)
    base = read(trio[0])
    for name, tensor in checkpoint.tensors(point(trio, method, weights, **given), rounded=False):
        clear = ~np.isnan(expected[name])
        change = np.abs(expected[name] - base[name].double().numpy())[clear]
        off = np.abs(tensor.double().numpy() - expected[name])[clear]
        assert off.max(initial=0) <= 1e-8 + 1e-6 * change.max(initial=0), name


# ---- the same bytes -------------------------------------------------------------------------------------------------


def digests(trio: Sequence[Path], out: Path, order: Sequence[int] | None = None, **more: Any) -> list[str]:
    points = [point(trio, method, w, **given) for method, given in GRID for w in ((0.3, 0.7), (0.6, 0.4))]
    order = list(order or range(len(points)))
    outs = [out / str(index) for index in order]
    found = dict(zip(order, checkpoint.write_many([points[i] for i in order], outs, **more), strict=True))
    assert all(found[i] == checkpoint.digest(Checkpoint("m", out / str(i), "m")) for i in order)
    return [found[index] for index in range(len(points))]


@pytest.fixture(scope="module")
def expected(trio: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    found = digests(trio, tmp_path_factory.mktemp("expected"), threads=1)
    assert len(set(found)) == len(found)
    return found


def test_two_threads_give_the_same_bytes(trio: list[Path], expected: list[str], tmp_path: Path) -> None:
    assert digests(trio, tmp_path, threads=2) == expected


def test_any_order_of_points_gives_the_same_bytes(trio: list[Path], expected: list[str], tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(expected)).tolist()
    assert digests(trio, tmp_path, order) == expected
    (alone,) = checkpoint.write_many([point(trio, "della", (0.6, 0.4), density=0.5, epsilon=0.1)], [tmp_path / "one"])
    assert alone == expected[11]


def test_any_layout_of_shards_gives_the_same_bytes(trio: list[Path], expected: list[str], tmp_path: Path) -> None:
    def resharded(path: Path, files: int) -> Path:
        tensors = load_file(path / "model.safetensors")
        save(tmp_path / path.name, tensors, files)
        return tmp_path / path.name

    again = [resharded(path, files) for path, files in zip(trio, (2, 3, 4), strict=True)]
    assert digests(again, tmp_path / "out", max_shard_bytes=200_000) == expected


def test_tensors_that_are_not_held_give_the_same_bytes(
    trio: list[Path], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "HELD_BYTES", 0)
    assert digests(trio, tmp_path) == expected


def test_masks_do_not_depend_on_how_a_tensor_is_cut(trio: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def masks() -> list[dict[str, torch.Tensor]]:
        names = ("ties", "dare_linear", "della")
        found = []
        for name in names:
            given: dict[str, Any] = {"density": 0.5} | ({"epsilon": 0.1} if name == "della" else {})
            merge = point(trio, name, (1.0, 0.0), **given, rescale="none")
            base = read(trio[0])
            found.append({key: tensor != base[key] for key, tensor in checkpoint.tensors(merge, rounded=False)})
        return found

    before = masks()
    monkeypatch.setattr(parts, "PART", 1 << 10)
    for one, other in zip(before, masks(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in SHAPES)


HASHED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_sweep import SMALL, digests, parts
parts.PART = SMALL
print(*digests([Path(path) for path in sys.argv[3:]], Path(sys.argv[2])))
"""


@pytest.mark.parametrize("seed", ["0", "1", "2", "3", "4"])
def test_any_hash_seed_gives_the_same_bytes(trio: list[Path], expected: list[str], tmp_path: Path, seed: str) -> None:
    command = [sys.executable, "-c", HASHED, str(Path(__file__).parent), str(tmp_path), *map(str, trio)]
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from importlib import import_module
write = import_module('mixmerge.checkpoint.write')
put = write._Output.put
def until(self, name, start, rows):
    if name == "one":
        os.kill(os.getpid(), 9)
    put(self, name, start, rows)
write._Output.put = until
from test_sweep import SMALL, digests, parts
parts.PART = SMALL
digests([Path(path) for path in sys.argv[3:]], Path(sys.argv[2]))
"""


def test_after_a_kill_the_same_call_gives_the_same_bytes(trio: list[Path], expected: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), *map(str, trio)]
    assert subprocess.run(command).returncode == -9
    assert all(path.name.endswith(".partial") for path in tmp_path.iterdir())
    assert digests(trio, tmp_path) == expected
    assert len(list(tmp_path.iterdir())) == len(expected)


# ---- masks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_every_tensor_keeps_its_density(trio: list[Path], density: float) -> None:
    base, *experts = (Checkpoint(path.name, path, path.name) for path in trio)
    shares, spreads = (density, density), (0.15, 0.15)
    for t in checkpoint.stacks(base, experts, [1, 1], 9):
        for masks in (thinning.by_chance(t, density=shares), thinning.by_rank(t, density=shares, epsilon=spreads)):
            for mask in masks.numpy():
                error = (density * (1 - density) / max(1, mask.size)) ** 0.5
                assert mask.size == 0 or abs(mask.mean() - density) < 4 * error, t.name


# ---- plugins --------------------------------------------------------------------------------------------------------


def norms(t: TensorStack) -> torch.Tensor:
    CALLS.append((t.name, t.start))
    return t.deltas.double().reshape(len(t.deltas), -1).abs().sum(1)


CALLS: list[tuple[str, int]] = []


@rowwise
def shrunk(t: TensorStack, /, *, share: float) -> torch.Tensor:
    total = t.total(norms)
    return t.deltas * (share / total.float()).reshape(t.weights.shape)


@rowwise
def added(t: TensorStack, /) -> torch.Tensor:
    return t.base + (t.weights * t.deltas).sum(0)


def test_a_plugin_shares_totals_as_the_built_ins_do(trio: list[Path]) -> None:
    component = Component("merger", "shrunk", "1", added, prepare=shrunk)
    CALLS.clear()
    points = [point(trio, component, (w, 1 - w), share=share) for w in (0.2, 0.8) for share in (1.0, 2.0)]
    found = dict(checkpoint.merged([p.derivation for p in points if p.derivation], rounded=False))
    assert len(CALLS) == len(set(CALLS)), "each part is measured once"
    assert {name for name, start in CALLS if start} == {"wide", "long", "cube"}
    base, one, two = (read(path) for path in trio)
    for name, tensors in found.items():
        deltas = [(model[name] - base[name]).double() for model in (one, two)]
        for tensor, (w, share) in zip(tensors, [(w, s) for w in (0.2, 0.8) for s in (1.0, 2.0)], strict=True):
            unit = [share * delta / delta.abs().sum() for delta in deltas]
            expected = base[name].double() + w * unit[0] + (1 - w) * unit[1]
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-7)


@rowwise
def hasty(t: TensorStack, /) -> torch.Tensor:
    return t.deltas + t.total(lambda part: part.deltas.sum()).float()


def scaled(t: TensorStack, *, by: int) -> torch.Tensor:
    return by + t.deltas.sum()


@rowwise
def changing(t: TensorStack, /) -> torch.Tensor:
    return t.deltas + t.total(partial(scaled, by=t.start)).float()


@rowwise
def biased(t: TensorStack, /) -> torch.Tensor:
    return t.base + t.total(weighed).sum()


@rowwise
def failing(t: TensorStack, /) -> torch.Tensor:
    return t.base + [1, 2][t.deltas.ndim + 7]


@rowwise
def silent(t: TensorStack, /) -> None:
    return None


@rowwise
def sequential(t: TensorStack, /) -> torch.Tensor:
    return t.deltas * torch.rand(t.base.shape, generator=t.generator(0))


@rowwise
def peeking(t: TensorStack, /) -> torch.Tensor:
    return t.base + t.once(weighed)


@rowwise
def drawing(t: TensorStack, /) -> torch.Tensor:
    return t.base + torch.rand(t.shape, generator=t.generator(0))


@rowwise
def early(t: TensorStack, /) -> torch.Tensor:
    return t.weights * t.deltas


def weighed(t: TensorStack) -> torch.Tensor:
    return (t.weights * t.deltas).sum(0)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component("merger", "hasty", "1", added, prepare=hasty), "merge method hasty asks for the total of a lambda"),
        (
            Component("merger", "changing", "1", added, prepare=changing),
            "asks for a total of cube that its first part did not",
        ),
        (Component("merger", "biased", "1", biased), "a statistic of merge method biased is NaN at bias"),
        (Component("merger", "failing", "1", failing), "merge method failing failed at bias: IndexError: list index"),
        (Component("merger", "silent", "1", silent), "merge method silent gave NoneType for bias, not a tensor"),
        (
            Component("merger", "sequential", "1", added, prepare=sequential),
            "t.generator in a function that is rowwise",
        ),
        (Component("merger", "drawing", "1", drawing), "t.generator in a function that is rowwise, at bias"),
        (
            Component("merger", "early", "1", added, prepare=early),
            "what the first part of merge method early gives is NaN at bias",
        ),
        (Component("merger", "peeking", "1", peeking), "what merge method peeking asks t.once for is NaN"),
    ],
)
def test_a_rowwise_plugin_that_breaks_its_promise_is_told(trio: list[Path], component: Component, message: str) -> None:
    with pytest.raises(Exception, match=message):
        list(checkpoint.tensors(point(trio, component)))


def test_a_plugin_that_fails_is_told_where(trio: list[Path]) -> None:
    with pytest.raises(CheckpointError) as caught:
        list(checkpoint.tensors(point(trio, Component("merger", "failing", "1", failing))))
    line = failing.__code__.co_firstlineno + 2
    assert caught.value.hint == f"see {__file__}, line {line}"


def test_float16_that_overflows_is_an_error(tmp_path: Path) -> None:
    big = {"w": torch.full((4, 4), 60000.0, dtype=torch.float16)}
    for name in ("base", "one"):
        save(tmp_path / name, {"w": big["w"] * (0 if name == "base" else 1)}, 1)
    merge = point([tmp_path / "base", tmp_path / "one"], "linear", (2.0,), normalize=False)
    with pytest.raises(CheckpointError, match="16 of 16 values of w are NaN or infinite"):
        checkpoint.write(merge, tmp_path / "out")


# ---- what is read, and how often it is rounded ----------------------------------------------------------------------


@rowwise
def halved(t: TensorStack, /) -> torch.Tensor:
    return t.deltas / 2


def test_a_method_that_needs_no_base_reads_none(trio: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    read_rows = reading.Stored._read

    def noted(self: Any, name: str, start: int, stop: int | None) -> torch.Tensor:
        seen.add(self._stored.tensors[name].file.parent.name)
        return read_rows(self, name, start, stop)

    monkeypatch.setattr(reading.Stored, "_read", noted)
    for method, models in (("linear", {"one", "two"}), ("dare_linear", {"base", "one", "two"})):
        seen.clear()
        given = {"density": 0.5} if method != "linear" else {}
        assert len(list(checkpoint.sweep([point(trio, method, **given)]))) > 3
        assert seen == models


@pytest.mark.parametrize(("method", "given"), [("linear", {}), ("dare_linear", {"density": 1.0, "normalize": True})])
def test_a_plugin_can_thin_out_what_a_built_in_adds_up(trio: list[Path], method: str, given: dict[str, Any]) -> None:
    component = Component("merger", "half", "1", METHODS[method].function, prepare=halved)
    found = dict(checkpoint.tensors(point(trio, component, (1.0, 3.0), **given), rounded=False))
    base, one, two = (read(path) for path in trio)
    for name, tensor in base.items():
        expected = 0.5 * tensor + 0.5 * (0.25 * one[name] + 0.75 * two[name])
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


@rowwise
def from_operands(t: TensorStack, /) -> torch.Tensor:
    origin, models = t.operands
    return torch.stack([model.float() - origin.float() for model in models])[0]


@rowwise
def from_deltas(t: TensorStack, /) -> torch.Tensor:
    return t.deltas[0]


@pytest.mark.parametrize("prepare", [None, halved])
def test_operands_differ_by_the_deltas(trio: list[Path], prepare: Any) -> None:
    both = [Component("merger", "one", "1", one, prepare=prepare) for one in (from_operands, from_deltas)]
    found = [dict(checkpoint.tensors(point(trio, component))) for component in both]
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


def test_a_method_of_a_sweep_is_named_in_its_own_errors(trio: list[Path]) -> None:
    points = [point(trio, "linear"), point(trio, Component("merger", "biased", "1", biased))]
    with pytest.raises(CheckpointError, match="a statistic of merge method biased is NaN"):
        list(checkpoint.sweep(points))


@pytest.mark.parametrize(("method", "given"), GRID)
def test_a_merge_is_rounded_once_and_as_torch_rounds(trio: list[Path], method: str, given: dict[str, Any]) -> None:
    merge = [point(trio, method, **given)]
    for (_, name, start, full), (*place, short) in zip(
        checkpoint.sweep(merge, dtype="float32"), checkpoint.sweep(merge, dtype="bfloat16"), strict=True
    ):
        assert place == [0, name, start]
        assert torch.equal(full.bfloat16(), short)


def test_numbers_are_stored_as_bfloat16_as_torch_does() -> None:
    bits = np.random.default_rng(3).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    bits[:65_536] = np.arange(65_536, dtype=np.uint32) << 16 | 0x8000  # exactly between two
    values = torch.from_numpy(bits.view(np.float32).copy())
    values = torch.cat([values[~values.isnan()], torch.tensor([torch.inf, -torch.inf, 0.0, -0.0])])
    alone = (values.numpy(),)
    out = torch.empty(len(values), dtype=torch.bfloat16)
    with np.errstate(all="ignore"):
        _merge_kernels.averaged(alone, np.ones(1, dtype=np.float32), 1.0, kernels.raw(out))
    same = values + 0  # what the loop adds: -0.0 + 0.0 is 0.0
    assert torch.equal(out.view(torch.int16), same.bfloat16().view(torch.int16))
    _merge_kernels.averaged((np.array([np.nan], dtype=np.float32),), np.ones(1, np.float32), 1.0, kernels.raw(out[:1]))
    assert out[0].isnan()
