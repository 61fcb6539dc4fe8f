"""The frozen values that plugin authors touch. Nothing here imports torch.

models   stored and derived checkpoints, and what they were trained on
stack    the tensors that mergers and diagnostics see
scores   what evaluators, diagnostics and advisors give
steps    steps of a plan, points of a sweep, what a finished step leaves
tables   results as rows: what reporters and advisors are given
"""

from .models import Checkpoint, Dataset, Derivation, Kind, Mixture, Reading, Tokens, Training
from .scores import Advice, Document, Measurement, Score
from .stack import Extent, Statistic, Surroundings, TensorStack
from .steps import Point, Record, Step, Trial, content_id
from .tables import Doubt, Model, Overlap, Results, Row, Sample, Written

__all__ = [
    "Advice",
    "Checkpoint",
    "Dataset",
    "Derivation",
    "Document",
    "Doubt",
    "Extent",
    "Kind",
    "Measurement",
    "Mixture",
    "Model",
    "Overlap",
    "Point",
    "Reading",
    "Record",
    "Results",
    "Row",
    "Sample",
    "Score",
    "Statistic",
    "Step",
    "Surroundings",
    "TensorStack",
    "Tokens",
    "Training",
    "Trial",
    "Written",
    "content_id",
]
