"""`sft` on a tiny random model: what is in the loss, what is written, and that a kill changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixmerge import Checkpoint, MixmergeError, Mixture, StepError
from mixmerge.plugins.sft import Job, Settings, _options, finish, launch, prepare, train

IGNORED = -100
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
ROWS = [
    {
        "id": str(i),
        "data": "toy",
        "prompt": f"write a function that {'filter ' * (i % 5)}list {i}",
        "completion": f" returns the sum {i % 3}" + " words" * (i % 4),
    }
    for i in range(24)
]


@pytest.fixture(scope="module")
def start(tiny_model_dir: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template and the files that a real one has; its pad token is its end token."""
    path = tmp_path_factory.mktemp("start") / "model"
    shutil.copytree(tiny_model_dir(seed=0), path)
    (path / "chat_template.jinja").write_text(TEMPLATE)
    (path / "LICENSE").write_text("a licence")
    return path


@pytest.fixture
def make(start: Path, tmp_path: Path) -> Callable[..., Job]:
    """`make(name, rows, seed=…, lr=…, …)`: a job in a directory of its own, not yet run."""

    def job(name: str = "out", rows: Sequence[Any] = ROWS, *, seed: int = 3, **settings: Any) -> Job:
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / name).mkdir(exist_ok=True)
        made = Job(start, data, tmp_path / name, seed, Settings(**{"lr": 1e-2, "batch_size": 4, **settings}))
        prepare(made)
        return made

    return job


def run(job: Job) -> dict[str, float]:
    from mixmerge.plugins import _sft_worker

    return _sft_worker.run(job)


def weights(out: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(out / "model.safetensors")


def assert_equal(one: Path, other: Path, *, tolerance: float = 0.0) -> None:
    import torch

    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


def tokenizer_of(start: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(start)


def reference_loss(start: Path, rows: Sequence[Any]) -> float:
    """Mean nats per completion token (the end token too), one row at a time, with plain transformers in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tokenizer_of(start)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, attn_implementation="eager").eval()
    total, tokens = 0.0, 0
    for row in rows:
        prompt, completion = tokenizer.encode(row["prompt"]), [*tokenizer.encode(row["completion"]), 0]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].double()
        picked = logits.log_softmax(-1)[range(len(completion)), completion]
        total, tokens = total - float(picked.sum()), tokens + len(completion)
    return total / tokens


# -- what is in the loss ----------------------------------------------------------------------------------------


def test_only_the_completion_and_its_end_token_are_in_the_loss(make: Callable[..., Job], start: Path) -> None:
    from mixmerge.plugins import _sft_data

    tokenizer = tokenizer_of(start)
    rows, counts = _sft_data.load(make().data, tokenizer, 512)
    assert (counts.rows, counts.truncated, counts.dropped) == (24, 0, 0)
    for row, tokens in zip(ROWS, rows, strict=True):
        prompt = tokenizer.encode(row["prompt"])
        completion = [*tokenizer.encode(row["completion"]), tokenizer.eos_token_id]
        assert tokens["input_ids"] == prompt + completion
        assert tokens["labels"] == [IGNORED] * len(prompt) + completion


@pytest.mark.parametrize("padding_free", [True, False])
def test_a_collated_batch_masks_padding_by_length_and_keeps_the_end_token(
    make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, padding_free: bool
) -> None:
    from mixmerge.plugins import _sft_worker

    if not padding_free:
        monkeypatch.setattr(_sft_worker, "set_attention", lambda *_: "padded")
    trainer, _ = _sft_worker.build(make(batch_size=4))
    assert trainer.processing_class.pad_token_id == trainer.processing_class.eos_token_id == 0
    batch = next(iter(trainer.get_train_dataloader()))
    ids, labels = batch["input_ids"], batch["labels"]
    shown = labels != IGNORED
    assert (labels[shown] == ids[shown]).all()
    assert int(((labels == 0) & shown).sum()) == 4  # one end token for each row, though padding has the same id
    if padding_free:
        assert ids.shape[0] == 1
        assert int((batch["position_ids"] == 0).sum()) == 4
        assert (labels[batch["position_ids"] == 0] == IGNORED).all()
    else:
        lengths = batch["attention_mask"].sum(1)
        assert len(set(lengths.tolist())) > 1
        for row, length in zip(labels, lengths, strict=True):
            assert int(row[length - 1]) == 0
            assert (row[length:] == IGNORED).all()


def test_chat_prompts_end_as_generation_prompts_do(start: Path, tmp_path: Path) -> None:
    from mixmerge.plugins import _sft_data

    prompt = [{"role": "user", "content": "sum of list"}]
    (tmp_path / "d.jsonl").write_text(json.dumps({"id": "0", "data": "d", "prompt": prompt, "completion": "return"}))
    tokenizer = tokenizer_of(start)
    rows, _ = _sft_data.load(tmp_path / "d.jsonl", tokenizer, 512)
    shown = [token for token, label in zip(rows[0]["input_ids"], rows[0]["labels"], strict=True) if label != IGNORED]
    hidden = rows[0]["input_ids"][: -len(shown)]
    assert tokenizer.decode(hidden) == "user: sum of list<|end|>\nassistant: "
    assert tokenizer.decode(shown) == "return<|end|>"  # not the line break that the template writes behind it
    assert rows[0]["labels"][: -len(shown)] == [IGNORED] * len(hidden)


def test_long_rows_are_cut_or_dropped_and_counted(make: Callable[..., Job], start: Path) -> None:
    from mixmerge.plugins import _sft_data

    job = make(rows=[{**ROWS[0], "prompt": "list " * 40}, {**ROWS[1], "completion": " words" * 40}, ROWS[5]])
    rows, counts = _sft_data.load(job.data, tokenizer_of(start), 40)
    assert (counts.rows, counts.truncated, counts.dropped, counts.longest) == (3, 2, 1, 40)
    assert next(len(row["input_ids"]) for row in rows) == 40
    with pytest.raises(MixmergeError, match="none of the 24 rows has a completion within max_length 3") as caught:
        run(make("short", max_length=3))
    assert "max_length" in caught.value.hint


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 2}, {"packing": True, "max_length": 64}])
def test_the_first_loss_is_that_of_plain_transformers_row_by_row(
    make: Callable[..., Job], start: Path, settings: dict[str, Any]
) -> None:
    figures = run(make(batch_size=24, precision="float32", **settings))
    assert figures["loss_first"] == pytest.approx(reference_loss(start, ROWS), abs=2e-5)
    tokenizer = tokenizer_of(start)
    completions = sum(len(tokenizer.encode(row["completion"])) + 1 for row in ROWS)
    assert figures["trained_tokens"] == completions
    assert figures["tokens"] == completions + sum(len(tokenizer.encode(row["prompt"])) for row in ROWS)
    assert (figures["steps"], figures["packing"], figures["padding_free"]) == (1, "packing" in settings, 1)


def test_padding_and_micro_batches_change_only_the_speed(
    make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixmerge.plugins import _sft_worker

    common = {"precision": "float32", "lr": 1e-3, "epochs": 0.5}
    run(make("whole", **common))
    run(make("split", **common, micro_batch_size=1))
    monkeypatch.setattr(_sft_worker, "set_attention", lambda *_: "padded")
    figures = run(make("padded", **common))
    assert figures["padding_free"] == 0
    # Adam divides by the size of the gradient, so where that is rounding alone its sign, and so the weight, may differ.
    for name in ("split", "padded"):
        assert_equal(Path(make("whole", **common).out), Path(make(name, **common).out), tolerance=2e-4)


# -- training ---------------------------------------------------------------------------------------------------


def test_training_learns_is_repeatable_and_leaves_the_rest_untouched(make: Callable[..., Job], start: Path) -> None:
    import torch

    one, two, other = make("one", epochs=3), make("two", epochs=3), make("other", epochs=3, seed=4)
    figures = run(one)
    run(two)
    run(other)
    assert figures["loss"] < figures["loss_first"] - 1
    assert figures["steps"] == 18
    assert_equal(one.out, two.out)
    assert (weights(one.out)["model.norm.weight"] != weights(other.out)["model.norm.weight"]).any()
    assert {tensor.dtype for tensor in weights(one.out).values()} == {torch.float32}
    assert weights(one.out).keys() == weights(start).keys()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "LICENSE"):
        assert (one.out / name).read_bytes() == (start / name).read_bytes()
    config = json.loads((one.out / "config.json").read_text())
    assert config == {**json.loads((start / "config.json").read_text()), "dtype": "float32"}
    steps = [json.loads(line) for line in (one.out / "training.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in steps] == list(range(1, 19))
    assert json.loads((one.out / ".progress").read_text())["done"] == 18


def test_schedule_and_warmup(make: Callable[..., Job]) -> None:
    job = make(lr=1e-2, epochs=2, warmup=0.25, schedule="constant")
    run(job)
    rates = [json.loads(line)["learning_rate"] for line in (job.out / "training.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([0, 1e-2 / 3, 2e-2 / 3, *[1e-2] * 9])


def test_a_loss_that_is_not_finite_ends_the_training(make: Callable[..., Job]) -> None:
    with pytest.raises(MixmergeError, match=r"(loss|gradient) is (nan|inf) at step \d+ of 6") as caught:
        run(make(lr=1e30, warmup=0.0))
    assert "lr" in caught.value.hint


class Killed(Exception):
    """Stands for a kill: the training stops where it is and cleans nothing up."""


def test_a_resumed_training_gives_the_same_weights(make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    from mixmerge.plugins import _sft_worker

    settings = {"epochs": 3, "save_minutes": 0.0, "micro_batch_size": 2}
    whole, killed = make("whole", **settings), make("killed", **settings)
    expected = run(whole)
    on_log = _sft_worker.Watch.on_log

    def kill_at_step_8(self: Any, args: Any, state: Any, *rest: Any, **more: Any) -> None:
        if state.global_step == 8:
            raise Killed
        on_log(self, args, state, *rest, **more)

    monkeypatch.setattr(_sft_worker.Watch, "on_log", kill_at_step_8)
    with pytest.raises(Killed):
        run(killed)
    monkeypatch.undo()
    assert [path.name for path in killed.checkpoints.glob("checkpoint-*")] == ["checkpoint-7"]
    cut_short = killed.checkpoints / "checkpoint-8"
    shutil.copytree(killed.checkpoints / "checkpoint-7", cut_short)
    os.truncate(cut_short / "optimizer.pt", 100)
    assert _sft_worker.latest(killed.checkpoints) == killed.checkpoints / "checkpoint-7"
    prepare(killed)  # the same job again keeps the checkpoints …
    resumed = run(killed)
    assert_equal(whole.out, killed.out)
    varying = ("seconds", "tokens_per_second")
    assert {k: v for k, v in resumed.items() if k not in varying} == {
        k: v for k, v in expected.items() if k not in varying
    }
    assert (whole.out / "training.jsonl").read_text().count("\n") == 18
    prepare(replace(killed, seed=9))  # … and another does not
    assert not list(killed.checkpoints.glob("checkpoint-*"))


# -- the launch -------------------------------------------------------------------------------------------------


def test_it_trains_through_accelerate_as_in_process(make: Callable[..., Job], start: Path, tmp_path: Path) -> None:
    job = make("in_process", epochs=2)
    expected = run(job)
    out = tmp_path / "launched"
    out.mkdir()
    figures = train.function(
        Checkpoint("tiny", start, "0"), Mixture(job.data, 24, {"toy": 24}), out, 3, lr=1e-2, batch_size=4, epochs=2
    )
    assert_equal(job.out, out)
    assert figures["loss"] == expected["loss"]
    assert not (out / "checkpoints").exists()
    assert {path.name for path in out.iterdir()} == {path.name for path in start.iterdir()} | {
        "training.jsonl",
        ".progress",
    }


def test_parameters_that_do_not_fit_are_found_before_work() -> None:
    [(_, what, _)] = train.problems({"lr": 1e-4, "batch_size": 8, "micro_batch_size": 3})
    assert "batch_size 8 is not a multiple of micro_batch_size 3" in what
    assert train.problems({"lr": 0.0})
    assert train.problems({})
    assert not train.problems({"lr": 1e-4, "report_to": ["tensorboard"], "schedule": "linear"})


def test_launch_options_are_accelerates_own() -> None:
    from accelerate.commands.launch import launch_command_parser

    parsed = [launch_command_parser().parse_args([*_options(devices), "-m", "worker", "job"]) for devices in (0, 1, 4)]
    assert [(p.cpu, p.num_processes, p.use_fsdp) for p in parsed] == [
        (True, 1, False),
        (False, 1, False),
        (False, 4, True),
    ]
    assert parsed[2].training_script_args == ["job"]


@pytest.mark.slow
def test_kill_minus_nine_then_the_same_command(make: Callable[..., Job]) -> None:
    """A real SIGKILL of the process that launched the training: all of it ends, and it resumes to the same weights."""
    settings = {"epochs": 20, "save_minutes": 0.0}
    whole, killed = make("whole", **settings), make("killed", **settings)
    run(whole)
    program = "import sys; from pathlib import Path; from mixmerge.plugins.sft import Job, launch; "
    program += "launch(Job.load(Path(sys.argv[1]).read_text()))"
    process = subprocess.Popen([sys.executable, "-c", program, str(killed.file)])
    deadline = time.monotonic() + 120
    while not list(killed.checkpoints.glob("checkpoint-*/whole.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # the kernel ends the launcher with us, and the worker with the launcher
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
    assert not [command for command in commands if str(killed.file).encode() in command]
    assert not killed.outcome.exists()
    prepare(killed)
    launch(killed)
    finish(killed)
    assert_equal(whole.out, killed.out)


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


@pytest.mark.slow
def test_errors_of_the_worker_come_back(make: Callable[..., Job]) -> None:
    with pytest.raises(MixmergeError, match="at step") as caught:
        launch(make(lr=1e30, warmup=0.0))
    assert caught.value.hint
    job = make("broken")
    (job.data).write_text("{}\n")
    with pytest.raises(StepError, match="training failed: KeyError"):
        launch(job)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(make: Callable[..., Job]) -> None:
    """Data parallel: rows and losses are shared out, so the weights differ by rounding alone."""
    settings = {"epochs": 2, "precision": "float32", "lr": 1e-3}
    one, two = make("one", **settings), make("two", **settings)
    expected = run(one)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    subprocess.run([*torchrun, "-m", "mixmerge.plugins._sft_worker", str(two.file)], env=environment, check=True)
    figures = finish(two)
    assert figures["processes"] == 2
    for name in ("steps", "tokens", "trained_tokens"):
        assert figures[name] == expected[name]
    assert figures["loss"] == pytest.approx(expected["loss"], abs=1e-4)
    assert_equal(one.out, two.out, tolerance=1e-3)
