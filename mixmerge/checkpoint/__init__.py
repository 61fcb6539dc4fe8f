"""The only reader and writer of weights: streams aligned tensors of base and experts, one at a time.

inspect, check_aligned,       what lies in a directory, and whether experts or an adapter fit their base; headers only
check_vocabulary, check_adapter
names, plan                   what a checkpoint holds, what `write` would write; reads headers only
tensors, stacks, merged       weights by name, sorted, one tensor in memory at a time
pour                          into a loaded model, in place
write, write_many, digest     to a directory, whole or not at all
sweep                         what `write_many` would write, part by part, and nothing is
as_directory                  a directory for who reads only those; a merge is written for the time being
tokenizer_vocabulary          the tokens of a directory's tokenizer
measure                       all diagnostics in one pass, over a TensorView of each tensor and its TensorParts
notes, unplaced               what a reader of the measurements must know
layer_of, type_of             "layer 3", "embeddings", "head", "norm", "other"; "self_attn.q_proj"
"""

from .adapter import check_adapter
from .layout import Layout, TensorInfo, check_aligned, check_vocabulary, inspect, tokenizer_vocabulary
from .measure import Observer, measure
from .names import layer_of, type_of
from .notes import notes, unplaced
from .parts import HELD_BYTES
from .pour import pour
from .stream import merged, names, stacks, tensors
from .view import TensorPart, TensorView
from .write import as_directory, digest, plan, sweep, write, write_many

__all__ = [
    "HELD_BYTES",
    "Layout",
    "Observer",
    "TensorInfo",
    "TensorPart",
    "TensorView",
    "as_directory",
    "check_adapter",
    "check_aligned",
    "check_vocabulary",
    "digest",
    "inspect",
    "layer_of",
    "measure",
    "merged",
    "names",
    "notes",
    "plan",
    "pour",
    "stacks",
    "sweep",
    "tensors",
    "tokenizer_vocabulary",
    "type_of",
    "unplaced",
    "write",
    "write_many",
]
