"""Counting and clearing away what a candidate wrote, which may be as deep, as many or as locked as it likes."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

_ENTRY = 4096  # bytes that a file costs at the least


def size(folder: str, most: int) -> int:
    """Bytes below a folder; some number over `most` where there are more.

    The candidate may still run, and put a link in the place of a folder at any moment: nothing is changed here, links
    are not walked, and whoever leads this elsewhere all the same is soon over the limit. What cannot be counted, a path
    too long to name or a folder that cannot be read, counts as more than any limit.
    """
    total, folders = 0, [folder]
    while folders and total <= most:
        try:
            opened = os.open(place := folders.pop(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # gone since, or no folder any more
                continue
            return 1 << 62
        try:
            with os.scandir(opened) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        total += max(_ENTRY, found.st_blocks * 512)
                        if stat.S_ISDIR(found.st_mode):
                            folders.append(f"{place}/{entry.name}")
                    if total > most:
                        break
        except OSError:
            return 1 << 62
        finally:
            os.close(opened)
    return total


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
