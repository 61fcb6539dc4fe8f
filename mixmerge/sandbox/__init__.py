"""Runs programs that nobody has read, such as a model's, and never believes them. Standard library only; Linux.

A candidate runs in a process of its own, a fork of a small clean interpreter inside the sandbox (never of the caller,
whose memory may hold a model or the answers). It only supplies values: nothing that it says means "passed". Whoever
holds the expected values decides, somewhere else:

    judge(jobs)         a verdict for each: outputs compared as data (`Cases`), or the benchmark's own tests run by a
                        checker in a process of its own (`Tests`)
    run_programs(…)     what programs return, for a caller that compares by itself
    isolation()         what stands between a candidate and this host, tried rather than assumed

Time is a candidate's CPU time, so that a busy machine turns no pass into a failure. What the host grants is used:
level 3 namespaces (a read-only root with the standard library and numpy, no network, no other process) and seccomp;
2 Landlock and seccomp; 1 seccomp; 0 limits only, refused unless MIXMERGE_ALLOW_UNSANDBOXED=1.
"""

from .box import isolation
from .pool import judge, require, run_programs
from .probes import Probe, check, probe
from .values import (
    Cases,
    Digest,
    Isolation,
    Job,
    Limits,
    Opaque,
    Outcome,
    Program,
    Raised,
    Tests,
    Verdict,
    pack,
)

__all__ = [
    "Cases",
    "Digest",
    "Isolation",
    "Job",
    "Limits",
    "Opaque",
    "Outcome",
    "Probe",
    "Program",
    "Raised",
    "Tests",
    "Verdict",
    "check",
    "isolation",
    "judge",
    "pack",
    "probe",
    "require",
    "run_programs",
]
