"""Files that must survive: how Ferrox opens a file it has to trust and makes one that has to last.

A file that others may read appears under its name only when all of it is on disk: it is written under another name,
synced, renamed, and then the directory is synced, because a rename is only as durable as the directory that holds it.
No file is reached through a symbolic link, and no pipe in the place of a file is waited for.  A directory is opened
once, and files relative to it from then on, so one that is moved away meanwhile is still the same.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ferrox.errors import CorruptInput, UsageError

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
TEMPORARY: Final = ".tmp"
"""What a name ends with until its file is whole."""


def open_directory(path: str | os.PathLike[str]) -> int:
    """Return a descriptor of a directory; raise `UsageError` when there is none, or it may not be read."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"{_shown(path)}: there is no such directory") from None
    except NotADirectoryError:
        raise UsageError(f"{_shown(path)}: this is not a directory") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{_shown(path)}: the directory cannot be opened: {_reason(error)}") from None


def open_file(directory: int, name: str, path: str) -> int:
    """Return a descriptor for reading a regular file; raise `CorruptInput` when it is missing or is something else.

    `directory` is a descriptor; `path` is how the file is named to people.
    """
    try:
        # O_NONBLOCK: a pipe in the place of a file would hold the reader for ever.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        raise CorruptInput(f"{path}: this file is missing; restore it from a copy") from None
    except PermissionError:
        raise UsageError(f"{path}: this file may not be read; change its owner or mode") from None
    except OSError as error:
        raise CorruptInput(f"{path}: this is not a regular file ({_reason(error)}); put the file itself here") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise CorruptInput(f"{path}: this is not a regular file; put the file itself here")
    return file


def read_at(file: int, size: int, offset: int, path: str) -> bytes:
    """Return `size` bytes from `offset`, fewer only at the file's end; raise `CorruptInput` when the disk fails."""
    chunks: list[bytes] = []
    try:
        while size > 0 and (chunk := os.pread(file, size, offset)):
            chunks.append(chunk)
            size -= len(chunk)
            offset += len(chunk)
    except OSError as error:
        raise CorruptInput(
            f"{path}: offset {offset}: {size} bytes cannot be read: {_reason(error)}; copy the file to a sound disk"
        ) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def write_at(file: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`, however few bytes a single call takes; raise OSError when it cannot be."""
    written = os.pwrite(file, data, offset)
    while written < len(data):
        written += os.pwrite(file, memoryview(data)[written:], offset + written)


def publish(directory: int, name: str, chunks: Iterable[bytes], size: int = 0) -> int:
    """Make a file that appears under its name only whole and durable; return its descriptor, for reading and writing.

    It gets `size` bytes at least, all of which have their place on disk.  A remnant of an attempt that a crash cut
    short is replaced.  Raise OSError, and leave no remnant, when it fails.
    """
    temporary = name + TEMPORARY
    remove(directory, temporary)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, FILE_MODE, dir_fd=directory)
    try:
        if size:
            os.posix_fallocate(file, 0, size)
        offset = 0
        for chunk in chunks:
            write_at(file, chunk, offset)
            offset += len(chunk)
        os.fsync(file)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except BaseException:
        os.close(file)
        remove(directory, temporary)
        raise
    return file


def remove(directory: int, name: str) -> None:
    """Take a file out of a directory, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def names_in(directory: int) -> list[str]:
    """Return the names in a directory, sorted."""
    return sorted(os.listdir(directory))


def joined(directory: str | os.PathLike[str], name: str) -> str:
    """Return how a file of a directory is named to people."""
    return _shown(Path(directory) / name)


def is_zero(data: bytes) -> bool:
    """Return whether every byte is 0."""
    return data.count(0) == len(data)


def _reason(error: OSError | ValueError) -> str:
    """Return the system's words for an error, without the file that is named beside it anyway."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _shown(path: str | os.PathLike[str]) -> str:
    """Return a path as one printable line."""
    shown = os.fspath(path)
    return shown if shown.isprintable() and shown else repr(shown)
