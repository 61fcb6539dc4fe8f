"""`mixmerge merge`: a mergekit YAML is read strictly, bound to models, described, and merged.

is_one, read          the configuration, or every problem in it; `config` holds its values
prepare               find the models, bind every parameter for every tensor; `Merge.lines` say what they do
estimate, write       what it will take; the files, whole or not at all
"""

from .binding import Merge, Mergekit, prepare
from .config import MergeFile
from .output import Estimate, estimate, write
from .reader import is_one, read

__all__ = ["Estimate", "Merge", "MergeFile", "Mergekit", "estimate", "is_one", "prepare", "read", "write"]
