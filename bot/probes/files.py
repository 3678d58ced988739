"""The files of saved evidence, from a file, a directory or an archive that is read once and never unpacked to disk.

What must stay true: only what is wanted is read, no file is longer than its bound, an archive is not read without end, and nothing but a
regular file is opened.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bot.probes.admin import NotRead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAX_ARCHIVE_BYTES = 4 << 30
"""Unpacked, of a whole archive: a bug-report holds much that is passed over; a bomb is not read to its end."""


class File(NamedTuple):
    """One saved file: its path below what was given, when it was saved (seconds since the epoch), its bytes."""

    name: str
    saved_at: float
    body: bytes


def is_archive(path: Path) -> bool:
    """Whether a path is an archive, which walk looks into. Raises NotRead."""
    with _readable(path):
        return path.is_file() and tarfile.is_tarfile(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tarfile.TarError, EOFError, zlib.error) as e:
        raise NotRead(f"{path} cannot be read ({getattr(e, 'strerror', None) or e})") from None


def walk(path: Path, wanted: Callable[[str], object], max_bytes: int) -> Iterator[File]:
    """The files below a path whose names `wanted` likes; a path that is itself one file is asked about by its own name. Raises NotRead."""
    with _readable(path):
        path.stat()
        if path.is_dir():
            yield from _directory(path, wanted, max_bytes)
        elif is_archive(path):
            yield from _archive(path, wanted, max_bytes)
        elif wanted(path.name):
            yield _file(path, path.name, max_bytes)


def _directory(path: Path, wanted: Callable[[str], object], max_bytes: int) -> Iterator[File]:
    for folder, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(files):
            found = Path(folder) / file
            name = found.relative_to(path).as_posix()
            if wanted(name):
                yield _file(found, name, max_bytes)


def _file(path: Path, name: str, max_bytes: int) -> File:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise NotRead(f"{path} is no file")
    if found.st_size > max_bytes:
        raise NotRead(f"{path} is longer than {max_bytes >> 20} MB")
    return File(name, found.st_mtime, path.read_bytes())


def _archive(path: Path, wanted: Callable[[str], object], max_bytes: int) -> Iterator[File]:
    unpacked = 0
    with tarfile.open(path, mode="r|*") as archive:
        for member in archive:
            unpacked += member.size
            if unpacked > _MAX_ARCHIVE_BYTES:
                raise NotRead(f"{path} unpacks to more than {_MAX_ARCHIVE_BYTES >> 30} GB")
            if not member.isreg() or not wanted(member.name.removeprefix("./")):
                continue
            if member.size > max_bytes:
                raise NotRead(f"{member.name} in {path} is longer than {max_bytes >> 20} MB")
            body = archive.extractfile(member)
            if body is not None:
                yield File(member.name.removeprefix("./"), member.mtime, body.read())
