"""Journals that a verb makes: whole, or not there at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from ferrox.cli.signals import leaving
from ferrox.engine import Capacity
from ferrox.errors import UsageError
from ferrox.journal import Journal, Source

out_option = click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(),
    help="The journal to write: a directory that is new or empty.",
)

COPY_SIZE: Final = 1 << 20


@contextmanager
def new_journal(directory: str, capacity: Capacity, origin: str) -> Iterator[Journal]:
    """Begin a journal, close it after the block, and remove every trace of it when the block fails or is interrupted.

    `origin` names all that the journal is made from: the same text gives the same uuid and salts (JRN-18), and the
    clock stands at 0, because no time is taken here.
    """
    if directory == "-":
        raise UsageError("a journal is a directory, so it cannot go to stdout; name a directory for --out")
    existed = Path(directory).is_dir()
    ours = not os.path.lexists(directory) or (existed and is_empty(directory))
    seed = int.from_bytes(hashlib.sha256(origin.encode("utf-8", "surrogateescape")).digest(), "little")
    try:
        journal = Journal.create(directory, capacity, source=Source.seeded(seed))
    except UsageError:
        raise  # the directory may be another process's by now
    except BaseException:
        if ours:
            remove_journal(directory, keep_directory=existed)
        raise
    try:
        with journal:
            yield journal
    except BaseException:
        remove_journal(directory, keep_directory=existed)
        raise


def is_empty(directory: str) -> bool:
    """Say whether a directory holds nothing; one that cannot be read does not count as empty."""
    try:
        return not any(Path(directory).iterdir())
    except OSError:
        return False


def remove_journal(directory: str, *, keep_directory: bool) -> None:
    """Remove a directory that held nothing before we came, as far as the system lets us."""
    leaving()
    with suppress(OSError):
        for path in Path(directory).iterdir():
            path.unlink()
        if not keep_directory:
            Path(directory).rmdir()


def size_of_journal(directory: str) -> int:
    """Return the bytes of a journal's files."""
    return sum(path.stat().st_size for path in Path(directory).iterdir())


def digest_of_journal(directory: str) -> str:
    """Return the SHA-256 of a journal's segments joined, in order: what `cat DIR/*.wal | sha256sum` says."""
    sha256 = hashlib.sha256()
    for path in sorted(Path(directory).glob("*.wal")):
        with path.open("rb") as file:
            while chunk := file.read(COPY_SIZE):
                sha256.update(chunk)
    return sha256.hexdigest()
