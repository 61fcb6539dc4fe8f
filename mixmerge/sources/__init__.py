"""Where models and data come from. A leaf: imports no other part of mixmerge but its errors.

Models: `hf:`, a directory, `pypi:` (a GGUF file inside a wheel, pinned by SHA-256).
Data: `hf:`, a file, `codexglue`, `kodcode`, `mbpp`, `packages:` and `python-stdlib:` (function and docstring pairs),
`demo:list-pipelines`.
"""

from .columns import benchmark_id, source_name
from .explain import explain
from .models import ModelSource, cache_directory, is_adapter, is_directory, local_directory, model_pins, resolve_model
from .rows import Rows, check_data, data_identity, data_pins, load_rows
from .spec import ALLOWED, DataSpec, SpecProblem
from .wheels import wheel_file

__all__ = [
    "ALLOWED",
    "DataSpec",
    "ModelSource",
    "Rows",
    "SpecProblem",
    "benchmark_id",
    "cache_directory",
    "check_data",
    "data_identity",
    "data_pins",
    "explain",
    "is_adapter",
    "is_directory",
    "load_rows",
    "local_directory",
    "model_pins",
    "resolve_model",
    "source_name",
    "wheel_file",
]
