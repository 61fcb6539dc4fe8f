"""`sft`: supervised fine-tuning of all weights with TRL's SFTTrainer, launched through accelerate.

This module is the component and the launcher; `_sft_worker` is the program that accelerate starts, once per device.

    train() -> python -m mixmerge.plugins.sft JOB -> accelerate launch -> python -m mixmerge.plugins._sft_worker JOB

A job is a JSON file, so that the same recipe trains on a laptop's processor, on one GPU or on several.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mixmerge import Checkpoint, Component, MixmergeError, Mixture, StepError, hookimpl, trainer

_CHECKPOINTS = "checkpoints"
_LAUNCHER = "MIXMERGE_SFT_LAUNCHER"  # the process that a launched one must not outlive
_CPU_ALLOCATOR = {
    # Large tensors in huge pages: as quick as keeping everything on the heap (156 against 153 tokens per CPU second),
    # and memory stays flat where that grew from 2.7 to 6 GB.
    # It must stand in the environment before Python starts.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


@dataclass(frozen=True)
class Settings:
    """The parameters of `train`, which documents them."""

    lr: float
    epochs: float = 1.0
    batch_size: int = 8
    micro_batch_size: int | None = None
    max_length: int = 1024
    warmup: float = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    packing: bool = False
    precision: Literal["bf16", "float32"] = "bf16"
    gradient_checkpointing: bool = False
    save_minutes: float = 10.0
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One training: the directories it reads and writes, the seed, and the settings."""

    start: Path
    data: Path
    out: Path
    seed: int
    settings: Settings

    @property
    def checkpoints(self) -> Path:
        return self.out / _CHECKPOINTS

    @property
    def file(self) -> Path:
        return self.checkpoints / "job.json"

    @property
    def outcome(self) -> Path:
        """`{"figures": …}`, or `{"error": kind, "message": …, "hint": …}`."""
        return self.checkpoints / "outcome.json"

    def dump(self) -> str:
        paths = {"start": str(self.start), "data": str(self.data), "out": str(self.out)}
        return json.dumps({**paths, "seed": self.seed, "settings": asdict(self.settings)}, indent=1)

    @classmethod
    def load(cls, text: str) -> Job:
        job = json.loads(text)
        settings = Settings(**{**job["settings"], "report_to": tuple(job["settings"]["report_to"])})
        return cls(Path(job["start"]), Path(job["data"]), Path(job["out"]), job["seed"], settings)


def check(*, max_length: int, packing: bool, batch_size: int, micro_batch_size: int | None, **_: object) -> str:
    """What is wrong with parameters that are each right, or ""."""
    if micro_batch_size is not None and batch_size % micro_batch_size:
        return f"batch_size {batch_size} is not a multiple of micro_batch_size {micro_batch_size}"
    return ""


@trainer(
    name="sft",
    version="1",
    source="TRL's SFTTrainer; AdamW: arXiv:1711.05101; packing: best-fit decreasing, arXiv:2404.10830",
    check=check,
    speed=("micro_batch_size", "gradient_checkpointing", "save_minutes", "report_to"),
)
def train(
    start: Checkpoint,
    data: Mixture,
    out: Path,
    seed: int,
    /,
    *,
    lr: Annotated[float, Field(gt=0)],
    epochs: Annotated[float, Field(gt=0)] = 1.0,
    batch_size: Annotated[int, Field(ge=1)] = 8,
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None,
    max_length: Annotated[int, Field(ge=2)] = 1024,
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03,
    schedule: Literal["cosine", "linear", "constant"] = "cosine",
    weight_decay: Annotated[float, Field(ge=0)] = 0.0,
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0,
    packing: bool = False,
    precision: Literal["bf16", "float32"] = "bf16",
    gradient_checkpointing: bool = False,
    save_minutes: Annotated[float, Field(ge=0)] = 10.0,
    report_to: list[str] | None = None,
) -> Mapping[str, float]:
    """Fine-tune all weights on the completions with TRL's SFTTrainer, launched through accelerate.

    lr                      peak learning rate of AdamW (beta 0.9 and 0.999)
    epochs                  passes over the data; may be a fraction
    batch_size              rows in one step, over all devices and accumulation
    micro_batch_size        rows at a time on one device; null: as many as fit 1,024 tokens (8,192 on a GPU),
                            by the mean row on a processor without padding, else by the longest
    max_length              tokens; longer rows are cut at their end, and left out when no completion remains
    warmup                  share of the steps in which the learning rate rises linearly
    schedule                what it does then: cosine or linear to zero, or constant
    weight_decay            decoupled, as in AdamW
    max_grad_norm           gradients with a larger L2 norm are scaled down to it
    packing                 fill blocks of max_length tokens with whole rows; a block then counts as a row of a batch.
                            Rows in a block do not see one another
    precision               bf16: float32 weights under bf16 autocast; float32: no autocast
    gradient_checkpointing  recompute activations: less memory, more time
    save_minutes            write a checkpoint to resume from every so many minutes; it holds three float32 copies of
                            the model and is removed at the end. A run killed earlier starts again, with the same result
    report_to               trackers that transformers knows, such as [tensorboard]

    The loss is the mean over the completion tokens of a step, among them the end-of-sequence token; the prompt and the
    padding have none. Where the model allows it, rows are laid end to end without padding, and attention is computed
    row by row (flash attention on a GPU that has it).

    Writes `config.json`, `model.safetensors` (float32), the tokenizer's files as they are in `start`, and
    `training.jsonl` with a line for each step. With several GPUs, and no accelerate configuration of the user's own,
    weights are sharded with FSDP. Deterministic on a processor with one device, also when resumed.

    Returns steps, epochs, rows, truncated and dropped (rows), tokens and trained_tokens (in the loss), loss_first (of
    the first step) and loss (mean over the last epoch) in nats per token, lr, seconds, tokens_per_second, processes,
    packing and padding_free (1 or 0). Raises MixmergeError when the loss is not finite or no row is left.
    """
    if start.derivation is not None and not (start.path / "model.safetensors").exists():
        raise MixmergeError(f"{start.name} is a merge that is not written", hint="start from it once it is kept")
    settings = Settings(
        lr=lr,
        epochs=epochs,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        max_length=max_length,
        warmup=warmup,
        schedule=schedule,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        packing=packing,
        precision=precision,
        gradient_checkpointing=gradient_checkpointing,
        save_minutes=save_minutes,
        report_to=tuple(report_to or ()),
    )
    job = Job(start.path.absolute(), data.path.absolute(), out.absolute(), seed, settings)
    prepare(job)
    launch(job)
    figures = finish(job)
    return figures


def prepare(job: Job) -> None:
    """Write the job. Checkpoints of an earlier attempt stay only when it had the very same job."""
    text = job.dump()
    if job.file.is_file() and job.file.read_text(encoding="utf-8") != text:
        shutil.rmtree(job.checkpoints)
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    job.outcome.unlink(missing_ok=True)
    job.file.write_text(text, encoding="utf-8")


def launch(job: Job) -> None:
    """Run the job in processes of its own, which end with this one; their output is ours."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ, _LAUNCHER: str(os.getpid()), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "mixmerge.plugins.sft", str(job.file)]
    code = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    outcome = json.loads(job.outcome.read_text(encoding="utf-8")) if job.outcome.is_file() else {}
    if "error" in outcome:
        raise (MixmergeError if outcome["error"] == "user" else StepError)(outcome["message"], hint=outcome["hint"])
    if code or "figures" not in outcome:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        raise StepError(
            f"training ended with {how} and left no result",
            hint="the log says more; SIGKILL mostly means that memory ran out: lower micro_batch_size",
        )


def finish(job: Job) -> Mapping[str, float]:
    """The figures; what only served the training is removed."""
    figures: Mapping[str, float] = json.loads(job.outcome.read_text(encoding="utf-8"))["figures"]
    shutil.rmtree(job.checkpoints)
    return figures


# -- the launcher: a process of its own, so that accelerate and torch stay out of the step's ---------------------


def main(job_file: str) -> None:
    """Start the worker through accelerate, in the way that the machine and the user's configuration ask for."""
    end_with_parent(int(os.environ[_LAUNCHER]))
    os.environ[_LAUNCHER] = str(os.getpid())
    import torch
    from accelerate.commands.config.config_args import default_config_file
    from accelerate.commands.launch import launch_command, launch_command_parser

    if not torch.accelerator.is_available():
        os.environ.update({name: value for name, value in _CPU_ALLOCATOR.items() if name not in os.environ})
    options: Sequence[str] = () if Path(default_config_file).is_file() else _options(torch.accelerator.device_count())
    worker = ["-m", "mixmerge.plugins._sft_worker", job_file]
    launch_command(launch_command_parser().parse_args([*options, *worker]))


def _options(devices: int) -> list[str]:
    """How to launch without a configuration of the user's own: one process per GPU, one when there is none."""
    common = ["--num_machines", "1", "--dynamo_backend", "no", "--mixed_precision", "no"]  # the worker says which
    if devices == 0:
        return ["--cpu", "--num_processes", "1", *common]
    if devices == 1:
        return ["--num_processes", "1", *common]
    sharded = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_reshard_after_forward", "true"]
    whole = ["--fsdp_state_dict_type", "FULL_STATE_DICT", "--fsdp_cpu_ram_efficient_loading", "true"]
    wrap = ["--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]
    return ["--num_processes", str(devices), *common, *sharded, *whole, *wrap]


def end_with_parent(parent: int) -> None:
    """Let the kernel end this process when its parent ends, however that happens (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        raise SystemExit(1)


@hookimpl
def register_trainers() -> list[Component]:
    return [train]


if __name__ == "__main__":
    main(sys.argv[1])
