"""mixmerge: should several tasks be learnt from one data mixture, or merged from one expert each?"""

from .checkpoint import tensors
from .components import (
    Component,
    advisor,
    checkpoint_merger,
    diagnostic,
    evaluator,
    executor,
    merger,
    reporter,
    strategy,
    trainer,
)
from .errors import (
    CheckpointError,
    MixmergeError,
    PluginError,
    RecipeError,
    SandboxError,
    SourceError,
    StepError,
    StoreError,
)
from .hookspecs import hookimpl
from .store import progress
from .types import (
    Advice,
    Checkpoint,
    Derivation,
    Measurement,
    Mixture,
    Model,
    Point,
    Record,
    Results,
    Row,
    Score,
    Step,
    TensorStack,
    Trial,
)

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "Checkpoint",
    "CheckpointError",
    "Component",
    "Derivation",
    "Measurement",
    "MixmergeError",
    "Mixture",
    "Model",
    "PluginError",
    "Point",
    "RecipeError",
    "Record",
    "Results",
    "Row",
    "SandboxError",
    "Score",
    "SourceError",
    "Step",
    "StepError",
    "StoreError",
    "TensorStack",
    "Trial",
    "advisor",
    "checkpoint_merger",
    "diagnostic",
    "evaluator",
    "executor",
    "hookimpl",
    "merger",
    "progress",
    "reporter",
    "strategy",
    "tensors",
    "trainer",
]
