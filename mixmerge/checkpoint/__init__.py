"""The only reader and writer of weights: streams aligned tensors of base and experts, one at a time.

inspect, check_aligned        what lies in a directory, and whether experts fit their base; reads headers only
names, plan                   what a checkpoint holds, what `write` would write; reads headers only
tensors, stacks, merged       weights by name, sorted, one tensor in memory at a time
pour                          into a loaded model, in place
write, write_many, digest     to a directory, whole or not at all
sweep                         what `write_many` would write, part by part, and nothing is
as_directory                  a directory for who reads only those; a merge is written for the time being
tokenizer_vocabulary          the tokens of a directory's tokenizer
measure                       all diagnostics in one pass
layer_of                      "layer 3", "embeddings", "head", "norm", "other"
"""

from .layout import Layout, TensorInfo, check_aligned, inspect, layer_of, tokenizer_vocabulary
from .measure import Observer, measure
from .parts import HELD_BYTES
from .pour import pour
from .stream import merged, names, stacks, tensors
from .write import as_directory, digest, plan, sweep, write, write_many

__all__ = [
    "HELD_BYTES",
    "Layout",
    "Observer",
    "TensorInfo",
    "as_directory",
    "check_aligned",
    "digest",
    "inspect",
    "layer_of",
    "measure",
    "merged",
    "names",
    "plan",
    "pour",
    "stacks",
    "sweep",
    "tensors",
    "tokenizer_vocabulary",
    "write",
    "write_many",
]
