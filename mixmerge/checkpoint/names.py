"""Where a tensor sits, told from its name: Llama and what follows it (Qwen, DeepSeek, Mistral, Gemma, Phi, StarCoder2,
Granite, mixtures of experts), GPT-2 and Falcon, GPT-NeoX, MPT, OPT. A plugin's `place_tensor` knows more."""

from __future__ import annotations

import re

LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
_KINDS = (
    ("head", re.compile(r"(?:^|\.)(?:lm_head|embed_out|output)\.")),
    (
        "embeddings",
        re.compile(r"(?:^|\.)(?:embed_tokens|embed_in|embed_positions|wte|wpe|tok_embeddings|\w*embeddings?)\."),
    ),
    ("norm", re.compile(r"(?:^|\.)(?:norm|norm_f|ln_f|final_layer_?norm)\.")),
)
_OTHER_TOWERS = re.compile(r"(?:^|\.)(?:vision|visual|audio)\w*\.")  # their layers are none of the language model's


def layer_of(name: str) -> str:
    """Where a tensor sits: "layer 3", "embeddings", "head", "norm" (the final one) or "other".

    Goes by the names of Llama, Qwen, Mistral and DeepSeek (`model.layers.3.…`), GPT-2 and Falcon (`h.3.…`), GPT-NeoX
    (`gpt_neox.layers.3.…`), MPT (`blocks.3.…`) and what follows them.
    """
    if _OTHER_TOWERS.search(name):
        return "other"
    if found := LAYER.search(name):
        return f"layer {found[1]}"
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), "other")


def type_of(name: str) -> str:
    """What a layer's tensor is, the same in every layer: "self_attn.q_proj", "mlp.experts.down_proj", "attn.bias".

    The name after the layer's number, without ".weight" and without other numbers (those of experts).
    """
    found = LAYER.search(name)
    parts = (name[found.end() :] if found else name).split(".")
    kept = [part for part in parts if not part.isdigit()]
    return ".".join(kept[:-1] if kept[-1] == "weight" and len(kept) > 1 else kept)
