"""The program that accelerate starts for a training of `sft`, once per device: `python -m … JOB`.

What it adds to TRL's SFTTrainer: rows without padding on any device, a loss that on a processor projects only the
tokens that are in it, checkpoints that are known to be whole, and an end at the first loss that is not finite.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import sys
import time
import traceback
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from mixmerge import MixmergeError, progress
from mixmerge.plugins import _sft_data
from mixmerge.plugins._rows import only_full_attention
from mixmerge.plugins.sft import _LAUNCHER, Job, end_with_parent

_WHOLE = "whole.json"  # in a checkpoint, written last: the size of every file
_BESIDE = (  # what makes a model of weights; copied untouched
    *("generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("*.model", "*.tiktoken", "*.jinja", "chat_template.json", "preprocessor_config.json", "*.py"),
    *("LICENSE*", "NOTICE*"),
)
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
_TOKENS_AT_A_TIME = {"cpu": 1024, "gpu": 8192}  # activations of a 135M model then take about 1 GB
_TRIM_EVERY_STEPS = 1  # rows differ in length, so the heap fragments: two trainings grew from 8.0 to 9.4 GB with 4
_PRINT_EVERY_S = 10.0


# -- attention without padding ----------------------------------------------------------------------------------


def row_by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each of the rows that lie end to end in a batch of one.

    query is (1, heads, tokens, width); key and value (1, key heads, tokens, width); `cu_seq_lens_q` is where rows
    begin and end. Returns (1, tokens, heads, width). On a processor it computes in float32, which there takes half
    the time of bfloat16, forward and backward, for rows of 80 to 150 tokens.
    """
    lengths: list[int] = cu_seq_lens_q.diff().tolist()
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    rows = zip(*(torch.split(whole, lengths, 2) for whole in (query, key, value)), strict=True)
    with torch.autocast(query.device.type, enabled=False):
        parts = [
            torch.nn.functional.scaled_dot_product_attention(
                q, k.to(q.dtype), v.to(q.dtype), dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=True
            )
            for q, k, v in rows
        ]
    return torch.cat(parts, 2).transpose(1, 2), None


def set_attention(model: Any, precision: str) -> str:
    """Choose how `model` attends: "flash", "row_by_row" (both without padding) or "padded"; returns which."""
    from transformers.utils import is_flash_attn_2_available

    on_gpu = torch.cuda.is_available() and _on_gpu()
    if on_gpu and precision == "bf16" and model._supports_flash_attn and is_flash_attn_2_available():
        model.set_attn_implementation("flash_attention_2")
        return "flash"
    if not only_full_attention(model):
        return "padded"
    transformers.AttentionInterface.register("row_by_row", row_by_row)
    transformers.AttentionMaskInterface.register("row_by_row", lambda *_args, **_kwargs: None)
    model.set_attn_implementation("row_by_row")
    return "row_by_row"


# -- the trainer ------------------------------------------------------------------------------------------------


class Trainer(SFTTrainer):  # type: ignore[misc]
    """TRL's SFTTrainer, with the number of tokens in the loss beside each logged loss."""

    targets = 0  # tokens in the loss of the step at hand, over all devices

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self.targets = int(num_items_in_batch)
        on_cpu = inputs["input_ids"].device.type == "cpu"
        if not (on_cpu and self.padding_free) or self.aux_loss_enabled or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # TRL's own loss projects every position on a processor, prompts too, and once more in the backward pass.
        # Row starts are labelled -100 by the collator, so no prediction reaches across rows.
        labels = inputs.pop("labels")[0, 1:]
        places = (labels != _sft_data.IGNORED).nonzero().flatten()
        logits = model(**inputs, use_cache=False, logits_to_keep=places).logits[0]
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[places], reduction="sum")
        return loss / num_items_in_batch * self.accelerator.num_processes  # gradients are averaged over processes

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["trained_tokens"] = self.targets
        super().log(logs, start_time)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Follows a training: stops it when a figure is not finite, says how far it is, keeps whole checkpoints."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.saved = self.printed = time.monotonic()
        self.losses: deque[float] = deque(maxlen=10)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Mapping[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                what = "loss" if name == "loss" else "norm of the gradient"
                raise MixmergeError(
                    f"the {what} is {logs[name]} at step {state.global_step} of {state.max_steps}",
                    hint="lower lr, or set precision: float32",
                )
        if not state.is_world_process_zero:
            return
        self.losses.append(logs["loss"])  # one step's loss jumps with the rows in it
        note = f"loss {sum(self.losses) / len(self.losses):.3f}, mean of {len(self.losses)} steps"
        progress(self.job.out, state.global_step, state.max_steps, note)
        if time.monotonic() - self.printed > _PRINT_EVERY_S or state.global_step in (1, state.max_steps):
            self.printed = time.monotonic()
            print(f"step {state.global_step}/{state.max_steps}  {note}  lr {logs['learning_rate']:.2e}", flush=True)

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        from accelerate.utils import broadcast_object_list

        if state.global_step % _TRIM_EVERY_STEPS == 0 and sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        due = time.monotonic() - self.saved >= 60 * self.job.settings.save_minutes
        [due] = broadcast_object_list([due])  # clocks differ between processes, and all must save together
        control.should_save = due and state.global_step < state.max_steps

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        from accelerate import PartialState

        PartialState().wait_for_everyone()  # every process writes its own random state
        self.saved = time.monotonic()
        if state.is_world_process_zero:
            folder = self.job.checkpoints / f"checkpoint-{state.global_step}"
            sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
            (folder / _WHOLE).write_text(json.dumps(sizes))
            for other in self.job.checkpoints.glob("checkpoint-*"):
                if other != folder:
                    shutil.rmtree(other)


def latest(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end; one that a kill cut short is passed over."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / _WHOLE).read_text())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def build(job: Job) -> tuple[Trainer, dict[str, float]]:
    """The trainer, ready to train, with the figures that are known by now."""
    settings = job.settings
    tokenizer = AutoTokenizer.from_pretrained(job.start)
    if tokenizer.eos_token_id is None:
        raise MixmergeError(f"{job.start}: the tokenizer has no end-of-sequence token", hint="set its eos_token")
    rows, counts = _sft_data.load(job.data, tokenizer, settings.max_length)
    if not len(rows):
        raise MixmergeError(
            f"none of the {counts.rows} rows has a completion within max_length {settings.max_length}",
            hint="raise max_length",
        )
    model = AutoModelForCausalLM.from_pretrained(job.start, dtype=torch.float32)
    attention = set_attention(model, settings.precision)
    if settings.packing and attention == "padded":
        raise MixmergeError(
            f"packing: {type(model).__name__} cannot keep packed rows apart here",
            hint="set packing: false, or install flash-attn on a machine with a GPU",
        )
    # Without padding rows take the memory of their own tokens. On a GPU, where memory is short, the longest counts.
    by_mean = attention != "padded" and not _on_gpu()
    typical = math.ceil(counts.tokens / len(rows)) if by_mean else counts.longest
    arguments = _arguments(job, attention != "padded", settings.max_length if settings.packing else typical)
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[Watch(job)])
    trainer.remove_callback(transformers.PrinterCallback)
    figures = {
        "rows": float(counts.rows),
        "truncated": float(counts.truncated),
        "dropped": float(counts.dropped),
        "packing": float(settings.packing),
        "padding_free": float(attention != "padded"),
    }
    return trainer, figures


def _arguments(job: Job, padding_free: bool, row: int) -> SFTConfig:
    settings = job.settings
    on_gpu = _on_gpu()
    micro, accumulation = _split_batch(job, row, _TOKENS_AT_A_TIME["gpu" if on_gpu else "cpu"])
    return SFTConfig(
        output_dir=str(job.checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        learning_rate=settings.lr,
        lr_scheduler_type=_SCHEDULES[settings.schedule],
        warmup_steps=settings.warmup,  # below 1 it is a share of all steps
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=settings.precision == "bf16",
        gradient_checkpointing=settings.gradient_checkpointing,
        packing=settings.packing,
        padding_free=padding_free,
        max_length=settings.max_length if settings.packing or not padding_free else None,  # rows are cut already
        seed=job.seed,
        data_seed=job.seed,
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=on_gpu,
        # The pad token may be the end token, so where nothing is padded every token counts.
        include_num_input_tokens_seen="all" if padding_free else "non_padding",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would hide what `Watch` looks for
        save_strategy="no",  # `Watch` says when
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
    )


def _on_gpu() -> bool:
    """Whether there is an accelerator and accelerate was not told to leave it alone."""
    return torch.accelerator.is_available() and os.environ.get("ACCELERATE_USE_CPU", "false").lower() != "true"


def _split_batch(job: Job, row: int, tokens_at_a_time: int) -> tuple[int, int]:
    """Rows at a time on one device, and how often gradients are added up: the same step on any number of devices.

    `row` is how many tokens a row takes.
    """
    settings = job.settings
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # by torchrun and accelerate; their state is not set up yet
    rows, rest = divmod(settings.batch_size, processes)
    if rest:
        raise MixmergeError(
            f"batch_size {settings.batch_size} cannot be shared by {processes} devices",
            hint=f"make it a multiple of {processes}",
        )
    if micro := settings.micro_batch_size:
        if rows % micro:
            raise MixmergeError(
                f"batch_size {settings.batch_size} is no multiple of micro_batch_size {micro} on {processes} devices",
                hint=f"take a micro_batch_size that divides {rows}, or leave it out",
            )
        return micro, rows // micro
    fitting = (size for size in range(2, rows + 1) if rows % size == 0 and size * row <= tokens_at_a_time)
    micro = max(fitting, default=1)
    return micro, rows // micro


# -- the whole of it --------------------------------------------------------------------------------------------


def run(job: Job) -> dict[str, float]:
    """Train, write the model into `job.out`, and return the figures that `sft.train` documents."""
    transformers.utils.logging.disable_progress_bar()
    trainer, figures = build(job)
    checkpoint = latest(job.checkpoints)
    if checkpoint:
        print(f"resumes from step {checkpoint.name.rpartition('-')[2]}", flush=True)
    before = _tokens_seen(checkpoint)
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - started
    save(trainer, job)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    last_epoch = [entry for entry in history if entry["epoch"] > history[-1]["epoch"] - 1]
    trained = sum(entry["trained_tokens"] for entry in last_epoch)
    figures |= {
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch or 0.0,
        "tokens": trainer.state.num_input_tokens_seen,
        "trained_tokens": sum(entry["trained_tokens"] for entry in history),
        "loss_first": history[0]["loss"],
        "loss": sum(entry["loss"] * entry["trained_tokens"] for entry in last_epoch) / trained,
        "lr": job.settings.lr,
        "seconds": seconds,
        "tokens_per_second": (trainer.state.num_input_tokens_seen - before) / seconds,
        "processes": trainer.accelerator.num_processes,
    }
    if trainer.is_world_process_zero():
        lines = (json.dumps(entry) + "\n" for entry in history)
        (job.out / "training.jsonl").write_text("".join(lines), encoding="utf-8")
    return {name: float(value) for name, value in figures.items()}


def _tokens_seen(checkpoint: Path | None) -> int:
    if checkpoint is None:
        return 0
    return int(json.loads((checkpoint / "trainer_state.json").read_text())["num_input_tokens_seen"])


def save(trainer: Trainer, job: Job) -> None:
    """Weights in float32 beside the start's own tokenizer, chat template and configuration, which are copied."""
    final = job.checkpoints / "final"
    trainer.save_model(str(final))  # gathers what is sharded over devices
    if not trainer.is_world_process_zero():
        return
    for path in final.glob("model*.safetensors*"):
        path.replace(job.out / path.name)
    for path in sorted({path for pattern in _BESIDE for path in job.start.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, job.out / path.name)
    config = json.loads((job.start / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    text = json.dumps({**config, "dtype": "float32"}, indent=2, ensure_ascii=False) + "\n"
    (job.out / "config.json").write_text(text, encoding="utf-8")


def main(job_file: str) -> None:
    if launcher := os.environ.get(_LAUNCHER):
        end_with_parent(int(launcher))
    job = Job.load(Path(job_file).read_text(encoding="utf-8"))
    outcome: dict[str, Any]
    try:
        outcome = {"figures": run(job)}
    except MixmergeError as error:
        outcome = {"error": "user", "message": error.message, "hint": error.hint}
    except Exception as error:
        traceback.print_exc()
        message = f"training failed: {type(error).__name__}: {error}".strip().splitlines()[0]
        outcome = {"error": "other", "message": message, "hint": "the log holds the traceback"}
    if "error" in outcome or os.environ.get("RANK", "0") == "0":
        part = job.outcome.with_name(f"{job.outcome.name}.{os.getpid()}")
        part.write_text(json.dumps(outcome), encoding="utf-8")
        part.replace(job.outcome)
    sys.exit("error" in outcome)


if __name__ == "__main__":
    main(sys.argv[1])
