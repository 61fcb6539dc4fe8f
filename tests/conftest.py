"""Fixtures that several test files share: a tiny real model, a toy plugin, the command line, and the test data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if (_worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    # A core for each of pytest-xdist's processes and what it starts: a run then has one worker that imports torch.
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(_worker.removeprefix("gw")) % len(_cores)]})
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TESTS = Path(__file__).parent
TOY = TESTS / "data" / "toy.py"
WORDS = "write a function that adds numbers and returns the sum of every even value in list of words map filter sort"


def make_tiny_model(path: Path, *, seed: int = 0, layers: int = 2, vocab: int = 320, dtype: str = "float32") -> Path:
    """A random Llama (16 wide) with a byte-level tokenizer, saved in the Hugging Face layout; some 30 kB."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<|pad|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(path)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", model_max_length=512
    )
    fast.save_pretrained(path)
    return path


def make_adapter(path: Path, base: str | Path, seed: int, **settings: Any) -> Path:
    """A LoRA adapter that PEFT saved, and in `merged` the model that PEFT makes of it; float32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    given = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]} | settings
    found = get_peft_model(model, LoraConfig(**given))
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    found.save_pretrained(path)
    found.merge_and_unload().save_pretrained(path / "merged")
    return path


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A factory: `tiny_model_dir(seed=1)` gives the directory of a tiny model; equal arguments, equal directory."""
    made: dict[str, Path] = {}

    def make(**arguments: object) -> Path:
        key = json.dumps(arguments, sort_keys=True)
        if key not in made:
            made[key] = make_tiny_model(tmp_path_factory.mktemp("tiny"), **arguments)  # type: ignore[arg-type]
        return made[key]

    return make


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real data for tests: `MIXMERGE_DATA`, else `../shared/data` beside the clone; skips where it is absent."""
    path = Path(os.environ.get("MIXMERGE_DATA", TESTS.parent.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no test data at {path} (set MIXMERGE_DATA)")
    return path


@pytest.fixture
def mixmerge(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in `tmp_path`: `mixmerge("check", "r.yaml")`; output is captured."""

    def run(
        *arguments: object, env: dict[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mixmerge", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


TOY_RECIPE = """\
base: {{model: {base}}}
seed: 7
data:
  gen: {{source: {folder}/gen.jsonl, prompt: question, answer: reply}}
  sum: {{source: {folder}/sum.jsonl, prompt: question, answer: reply}}
train:
  defaults: {{trainer: {{toy_train: {{step: 0.05}}}}}}
  gen_expert: {{data: {{gen: 1.0}}, trainer: toy_train}}
  sum_expert: {{data: {{sum: 1.0}}, trainer: {{toy_train: {{step: 0.1}}}}}}
  mixed: {{data: {{gen: all, sum: all}}, trainer: toy_train}}
merge:
  merged:
    experts: [gen_expert, sum_expert]
    sweep:
      weights: [[0.3, 0.7], [0.5, 0.5], [0.7, 0.3]]
      method: [linear, ties: {{density: 0.5}}]
eval:
  evaluator: toy_eval
  choose_on: [gen_dev, sum_dev]
  report_on: [gen_test, sum_test]
diagnose: [l2, correlation]
advise: [mix_or_merge]
report: [markdown, csv]
"""


def write_toy_recipe(folder: Path, base: Path) -> Path:
    """A whole recipe over a tiny model and the toy plugin (`-p TOY`): every kind of step, in seconds."""
    for name in ("gen", "sum"):
        rows = [{"question": f"{name} question {i}", "reply": f"{name} reply {i}"} for i in range(20)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "toy.yaml"
    path.write_text(TOY_RECIPE.format(base=base, folder=folder))
    return path


@pytest.fixture
def toy_recipe(tmp_path: Path, tiny_model_dir: Callable[..., Path]) -> Path:
    return write_toy_recipe(tmp_path, tiny_model_dir(seed=0))
