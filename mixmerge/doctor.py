"""What this machine can do, each thing tried rather than assumed."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil

from . import sandbox
from .store import versions

_EXTRAS = {"ray": "the executor 'ray'", "vllm": "lm_eval: {model: vllm}", "nltk": "METEOR", "flash_attn": "packing"}


def examine() -> dict[str, object]:
    """Facts by name; imports torch, so it takes some seconds."""
    import torch

    from .plugins.executors import local_size

    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    workers, threads = local_size()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    isolation = sandbox.isolation()
    return {
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{pages / 2**30:.1f} GiB",
        "disk free here": f"{shutil.disk_usage('.').free / 2**30:.1f} GiB",
        "accelerator": accelerators or "none: everything runs on the CPU",
        "bf16": _bf16(),
        "local executor": f"{workers} workers of {threads} threads",
        "isolation": [f"level {isolation.level} of 3", *isolation.layers],
        "sandbox": _sandbox() if isolation.level else "refused here, unless MIXMERGE_ALLOW_UNSANDBOXED=1",
        "extras": [
            f"{name} ({use}): {'yes' if importlib.util.find_spec(name) else 'no'}" for name, use in _EXTRAS.items()
        ],
        "versions": [f"{name} {version}" for name, version in versions().items()],
    }


def _sandbox() -> list[dict[str, object]]:
    """What was tried from inside: `ok` is whether it went as it should."""
    tried = [(f"it cannot {one.what}", one) for one in sandbox.probe()]
    return [
        {"what": what, "ok": one.ok, "how": one.how} for what, one in (*tried, *((o.what, o) for o in sandbox.check()))
    ]


def _bf16() -> str:
    import torch

    if torch.cuda.is_available():
        return "yes" if torch.cuda.is_bf16_supported() else "no: set precision: float32"
    capability = torch.backends.cpu.get_cpu_capability()
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return f"{'native' if native else 'emulated (slow): consider precision: float32'} ({capability})"
