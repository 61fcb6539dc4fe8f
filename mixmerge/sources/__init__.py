"""Where models and data come from. A leaf: imports no other part of mixmerge but its errors.

Models: `hf:`, a directory, `pypi:` (a GGUF file inside a wheel, pinned by SHA-256).
Data: `hf:`, a file, `packages:` and `python-stdlib:` (function and docstring pairs), `demo:list-pipelines`.
"""

from .columns import benchmark_id, source_name
from .models import ModelSource, cache_directory, local_directory, model_pins, resolve_model
from .rows import DataSpec, Rows, data_pins, load_rows
from .wheels import wheel_file

__all__ = [
    "DataSpec",
    "ModelSource",
    "Rows",
    "benchmark_id",
    "cache_directory",
    "data_pins",
    "load_rows",
    "local_directory",
    "model_pins",
    "resolve_model",
    "source_name",
    "wheel_file",
]
