"""The only reader and writer of weights: streams aligned tensors of base and experts, one at a time.

inspect, check_aligned        what lies in a directory, and whether experts fit their base; reads headers only
tensors, stacks, merged       weights by name, sorted, one tensor in memory at a time
pour                          into a loaded model, in place
write, write_many, digest     to a directory, whole or not at all
as_directory                  a directory for who reads only those; a merge is written for the time being
measure                       all diagnostics in one pass, over a TensorView of each tensor and its TensorParts
notes                         what a reader of the measurements must know
layer_of, type_of             "layer 3", "embeddings", "head", "norm", "other"; "self_attn.q_proj"
"""

from .layout import Layout, TensorInfo, check_aligned, inspect
from .measure import Observer, measure
from .names import layer_of, type_of
from .notes import notes
from .pour import pour
from .stream import merged, stacks, tensors
from .view import TensorPart, TensorView
from .write import as_directory, digest, write, write_many

__all__ = [
    "Layout",
    "Observer",
    "TensorInfo",
    "TensorPart",
    "TensorView",
    "as_directory",
    "check_aligned",
    "digest",
    "inspect",
    "layer_of",
    "measure",
    "merged",
    "notes",
    "pour",
    "stacks",
    "tensors",
    "type_of",
    "write",
    "write_many",
]
