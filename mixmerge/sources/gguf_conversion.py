"""Turn a GGUF file into an ordinary model directory. Run as `python -m mixmerge.sources.gguf_conversion GGUF OUT`.

The quantised weights are dequantised, rounded once to bfloat16, and saved as bfloat16: whatever trains or merges from
there starts at values that a 16-bit checkpoint holds exactly. Prints the model's label and licence as a JSON list.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

DIGITS_APART = frozenset({"smollm", "refact", "command-r", "codeshell"})
"""Values of `tokenizer.ggml.pre` for which llama.cpp splits off every digit before the GPT-2 pattern (llama-vocab.cpp);
transformers builds the GPT-2 pattern alone."""
PLAIN = frozenset({"default", "gpt-2", "gpt2", ""})


def convert(gguf: Path, out: Path) -> tuple[str, str]:
    """Write the model of `gguf` to the directory `out`; gives its label and licence.

    Raises ValueError for a tokenizer whose splitting rule is not known here, rather than to write a wrong one.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    fields = GGUFReader(str(gguf)).fields

    def field(name: str) -> str:
        return str(fields[name].contents()) if name in fields else ""

    rule = field("tokenizer.ggml.pre")
    if rule not in DIGITS_APART | PLAIN:
        raise ValueError(f"the tokenizer rule {rule!r} is not known (known: {', '.join(sorted(DIGITS_APART | PLAIN))})")
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    label = name_of(gguf.stem)

    _drop_quantisation(model)
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.config._name_or_path = label
    model.config._model_name_or_path = label
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|endoftext|>")]
    ends = list(dict.fromkeys(token for token in ends if token is not None))  # an answer may end as chat or as document
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(out)
    if rule in DIGITS_APART:
        _split_digits(tokenizer)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(out)
    _complete_tokenizer_config(out / "tokenizer_config.json")
    return label, field("general.license")


def name_of(stem: str) -> str:
    """What tables call the model: `NAME.Q4_1` becomes `NAME (Q4_1, dequantised)`, because published scores of NAME do
    not apply to it."""
    match = re.fullmatch(r"(?P<name>.+)[.-](?P<type>I?Q\d\w*|BF16|F16|F32)", stem, re.IGNORECASE)
    return f"{match['name']} ({match['type']}, dequantised)" if match else f"{stem} (from GGUF)"


def _drop_quantisation(model: Any) -> None:
    """Forget that the weights were quantised, so that a dense checkpoint is saved."""
    for holder, names in ((model.config, ["quantization_config"]), (model, ["hf_quantizer", "quantization_method"])):
        for name in names:
            if name in vars(holder):
                delattr(holder, name)
    model.is_quantized = False


def _split_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )


def _complete_tokenizer_config(path: Path) -> None:
    """Put in what transformers does not save (padding on the left, for generation) and take out what names a file."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    for name in ("gguf_file", "is_local", "local_files_only", "name_or_path"):
        settings.pop(name, None)
    settings["padding_side"] = "left"
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    print(json.dumps(convert(Path(sys.argv[1]), Path(sys.argv[2]))))
