"""Records to tidy rows: winners, the table in the paper's layout, and paired statistics.

What stands for what, everywhere in a report:

    primary metric    of a task: the metric whose rows say `primary`; when none does, the first that the task reports
    expert            a model of kind "expert", or one that a merge names among its experts
    best expert       of a task: the expert with the best primary metric on this very task. It is picked with the noise
                      that it has there, which favours the experts and so never a merge
    reference score   of a metric: the best expert's; without experts the base's; without a base zero
    relative change   100 x (value - reference) / |reference| in percent, its sign turned where lower is better, so that
                      positive is better. Where the reference is zero: 100 x the absolute change
    EXPERTS           stands for "each expert on its own task" wherever a model's name may stand

Winners are chosen on `choose_on` alone. Nothing here imports numpy before it is needed.
"""

from .across import Across, across
from .audit import KINDS as DOUBTS
from .audit import audit, tally
from .experiments import Experiment, experiments
from .layout import Cell, Column, Line, Series, SeriesPoint, Table, share, sweep_series, sweeps, table
from .methods import MethodResult, best_mixture, holm, methods, winner_of
from .optimism import Optimism, optimism
from .paired import (
    NORMAL_FROM_SAMPLES,
    RESAMPLES,
    Comparison,
    compare,
    compare_average,
    compare_rows,
    compare_unpaired,
    mcnemar,
)
from .pareto import front, pareto, task_changes
from .rows import (
    EXPERTS,
    best_by_method,
    best_expert,
    choose,
    experts_of,
    find_row,
    gain_kept,
    objective,
    primary_metric,
)

__all__ = [
    "DOUBTS",
    "EXPERTS",
    "NORMAL_FROM_SAMPLES",
    "RESAMPLES",
    "Across",
    "Cell",
    "Column",
    "Comparison",
    "Experiment",
    "Line",
    "MethodResult",
    "Optimism",
    "Series",
    "SeriesPoint",
    "Table",
    "across",
    "audit",
    "best_by_method",
    "best_expert",
    "best_mixture",
    "choose",
    "compare",
    "compare_average",
    "compare_rows",
    "compare_unpaired",
    "experiments",
    "experts_of",
    "find_row",
    "front",
    "gain_kept",
    "holm",
    "mcnemar",
    "methods",
    "objective",
    "optimism",
    "pareto",
    "primary_metric",
    "share",
    "sweep_series",
    "sweeps",
    "table",
    "tally",
    "task_changes",
    "winner_of",
]
