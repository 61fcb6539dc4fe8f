"""Counting and clearing away what a candidate wrote, which may be as deep, as many or as locked as it likes."""

from __future__ import annotations

import errno
import os
import stat

_ENTRY = 4096  # bytes that a file costs at the least


def size(folder: str) -> int:
    """Bytes below a folder. What cannot be counted, such as a path too long to name, counts as more than any limit."""
    total, folders = 0, [folder]
    while folders:
        try:
            with os.scandir(place := folders.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    total += max(_ENTRY, found.st_blocks * 512)
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(entry.path)
        except PermissionError:  # it may still be written into
            if not _unlock(place):
                return 1 << 62
            folders.append(place)
        except OSError as error:
            if error.errno != errno.ENOENT:  # gone since
                return 1 << 62
    return total


def _unlock(folder: str) -> bool:
    try:
        if os.stat(folder).st_mode & 0o700 == 0o700:
            return False
        os.chmod(folder, 0o700)
    except OSError:
        return False
    return True


def empty(folder: str) -> bool:
    """Remove everything below a folder; False if something stays.

    Folders in folders are moved up before they are removed: walking down fails at a depth that a candidate can reach.
    """
    moved = 0
    while True:
        with os.scandir(folder) as found:
            entries = list(found)
        if not entries:
            return True
        for entry in entries:
            try:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, 0o700)
                for name in os.listdir(entry.path):
                    inner, moved = f"{entry.path}/{name}", moved + 1
                    if not os.path.islink(inner) and os.path.isdir(inner):
                        os.chmod(inner, 0o700)  # a folder that is moved is written to
                        os.rename(inner, f"{folder}/.moved{os.getpid()}.{moved}")
                    else:
                        os.unlink(inner)
                os.rmdir(entry.path)
            except OSError:
                return False
