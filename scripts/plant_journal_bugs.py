"""Plant bugs into copies of the journal, one at a time, and see whether the tests notice.

    make compiled && python scripts/plant_journal_bugs.py [--only NAME ...] [--json FILE]

Each bug is a line or two of the journal, its recovery or its snapshots changed, in a copy of the compiled build, which
runs the fault suite and the journal's own tests until the first failure.  Exit status 1 when a bug survives.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
COMPILED: Final = ROOT / "build" / "compiled"
TESTS: Final = (
    "tests/unit/test_journal.py",
    "tests/unit/test_journal_writer.py",
    "tests/unit/test_recovery.py",
    "tests/unit/test_snapshot.py",
    "tests/properties/test_journal_damage.py",
    "tests/faults",
)
QUIET: Final = ("-p", "no:cacheprovider", "--no-header", "--tb=no", "--timeout=120")

# name: (file, the line as it is, the line as it must not be)
BUGS: Final = {
    # the order of writes
    "the mark before the records": (
        "journal/keeper",
        "        segment.storage.sync()\n        self.marks.write(chain.sequence, chain.checksum)\n",
        "        self.marks.write(chain.sequence, chain.checksum)\n        segment.storage.sync()\n",
    ),
    "the records are not synced": (
        "journal/keeper",
        "        segment.storage.sync()\n        self.marks.write(",
        "        self.marks.write(",
    ),
    "the mark is not synced": ("journal/keeper", "            self.marks.sync()\n", "            pass\n"),
    "both slots unsynced": (
        "journal/keeper",
        (
            "        if self.synced:  # else the other slot is the only one that is on disk for sure\n"
            "            self.slot = 1 - self.slot\n"
        ),
        "        self.slot = 1 - self.slot\n",
    ),
    "always the same slot": ("journal/keeper", "            self.slot = 1 - self.slot\n", "            pass\n"),
    "a full segment is left unsynced": ("journal/keeper", "            os.fdatasync(self.file)\n", ""),
    "a segment is begun too early": (
        "journal/keeper",
        "        self._finish()\n        before = self._before\n",
        "        before = self._before\n",
    ),
    "a file appears before it is whole": (
        "files",
        "        os.fsync(file)\n        os.rename(",
        "        os.rename(",
    ),
    "a name is not made durable": (
        "files",
        "        os.fsync(directory)\n    except BaseException:",
        "    except BaseException:",
    ),
    "a short write is taken for a whole one": (
        "files",
        "    while written < len(data):\n",
        "    while False:\n",
    ),
    "D1 does not sync": ("journal/writer", "            if self._syncs:\n", "            if False:\n"),
    "D2 does not sync the mark": (
        "journal/writer",
        "self._sync(mark=self.durability is Durability.D2)",
        "self._sync(mark=False)",
    ),
    # what is written
    "the lag says that all is durable": (
        "journal/writer",
        "self._chain.seal(records, self._keeper.durable, now_ns)",
        "self._chain.seal(records, self._chain.sequence, now_ns)",
    ),
    "the salt stays": (
        "journal/writer",
        "            salt=self._source.salt(),\n            prev_chain=self._chain.checksum,",
        "            prev_chain=self._chain.checksum,",
    ),
    "the chain keeps the old salt": ("journal/writer", "        self._chain.salt = self._header.salt\n", ""),
    "the digest of the wrong segment": (
        "journal/keeper",
        (
            "        before = self._before\n        self._finishing = Finishing(self.directory, full.place, "
            "chain.sequence, chain.checksum)\n        if not self._finishing.thread:\n            self._finish()\n"
        ),
        (
            "        self._finishing = Finishing(self.directory, full.place, "
            "chain.sequence, chain.checksum)\n        self._finish()\n        before = self._before\n"
        ),
    ),
    "a segment has one record too many": (
        "journal/writer",
        "self._header.base_sequence + self._header.segment_records - 1 - self._chain.sequence",
        "self._header.base_sequence + self._header.segment_records - self._chain.sequence",
    ),
    "nothing is kept for cancels": ("journal/writer", "RESERVE: Final = 4096", "RESERVE: Final = 0"),
    "a full disk takes orders": (
        "journal/writer",
        " or records[KIND_AT::RECORD_SIZE].strip(TAKEN_WHEN_LOW)",
        "",
    ),
    "a failure is forgotten": (
        "journal/writer",
        "        if self._failure:\n            raise JournalFailed(self._failure)\n",
        "",
    ),
    "a second writer is let in": (
        "journal/writer",
        "fcntl.LOCK_EX | fcntl.LOCK_NB)\n    except Blocking",
        "fcntl.LOCK_SH)\n    except Blocking",
    ),
    # what is read
    "the chain is not followed": (
        "journal/reader",
        "                passed = chain.follow(records[: asked * RECORD_SIZE])\n",
        "                passed = asked\n                chain.sequence += asked\n",
    ),
    "the watermark is not looked at": (
        "journal/reader",
        "        if sequence <= self.durable and (",
        "        if False and (",
    ),
    "everything above is damage": (
        "journal/reader",
        "        if sequence <= self.durable and (",
        "        if True and (",
    ),
    "the mark is no witness": (
        "journal/reader",
        "self.durable = max(self.mark.durable, self._witnessed(), snapshot)",
        "self.durable = max(self._witnessed(), snapshot)",
    ),
    "lags are no witnesses": ("journal/reader", "        self.durable = max(self.durable, watermark(sound))\n", ""),
    "later records are no witnesses": (
        "journal/reader",
        "                    self.durable = max(self.durable, _known(chunk, salt))\n",
        "                    pass\n",
    ),
    "records behind a hole are no witnesses": (
        "journal/reader",
        "            self.durable = max(self.durable, _known(chunk, segment.header.salt))\n",
        "",
    ),
    "beginnings are no witnesses": ("journal/reader", "        known = 0\n", "        return 0\n"),
    "snapshots are no witnesses": (
        "journal/reader",
        "        snapshot = newest_sequence(self.descriptor, self.mark.uuid)\n",
        "        snapshot = 0\n",
    ),
    "a lost header is never damage": (
        "journal/reader",
        "            if remainder.base <= self.durable or self",
        "            if self",
    ),
    "a lost opening is not missed": (
        "journal/reader",
        "        if self.mark.epoch <= self.segments[-1].header.epoch:\n            return\n",
        "        return\n",
    ),
    "what follows a segment is not looked at": (
        "journal/reader",
        "            self._check_following(segment, following)\n",
        "            pass\n",
    ),
    "digests are not compared": ("journal/reader", "            if expected != found:\n", "            if False:\n"),
    "a mark may disagree with its record": (
        "journal/reader",
        "        if 0 <= index < len(fields) and (",
        "        if False and (",
    ),
    "a header's zeros are not checked": (
        "journal/layout",
        "    if not (is_zero(page[112:124]) and is_zero(page[SEGMENT_HEADER.size :])):\n",
        "    if False:\n",
    ),
    "a header's checksum is not checked": ("journal/layout", "    if crc != expected:\n", "    if False:\n"),
    "a mark's checksum is not checked": (
        "journal/layout",
        "        and crc == crc32c(sector[: COMMIT_MARK.size - 4])\n",
        "",
    ),
    "the older mark is taken": ("journal/layout", "    mark, index = max(good,", "    mark, index = min(good,"),
    # recovery
    "a torn tail is cut before it is kept": (
        "journal/writer",
        "            if tail.size:\n                os.close(publish(",
        "            if False:\n                os.close(publish(",
    ),
    "later segments of a torn tail stay": (
        "journal/writer",
        "        for name in reversed(tail.files):\n",
        "        for name in ():\n",
    ),
    "what is behind the end stays": (
        "journal/writer",
        "    if reading.segments[-1].size > end:\n",
        "    if False:\n",
    ),
    "files are not synced before the verdict": (
        "journal/writer",
        "                os.fsync(file)\n                os.posix_fadvise",
        "                os.posix_fadvise",
    ),
    "the opening is not marked": ("journal/writer", "        if header.epoch > 1:\n", "        if False:\n"),
    "a snapshot hides what is before it": (
        "recovery",
        "start=latest.sequence + 1, **options)",
        "start=latest.sequence + 2, **options)",
    ),
    # snapshots
    "a snapshot of another journal is taken": (
        "snapshot",
        "        if uuid is not None and header.uuid != uuid:\n",
        "        if False:\n",
    ),
    "a snapshot's digest is not compared": ("snapshot", "    if trailer != expected:\n", "    if False:\n"),
    "a snapshot of another sequence is taken": (
        "snapshot",
        "    if match and int(match[1]) != header.sequence:\n",
        "    if False:\n",
    ),
    # the syncer
    "the syncer says durable before it syncs": (
        "journal/syncer",
        "            os.fdatasync(self.files[index])\n        self.durable = appended\n",
        "            pass\n        self.durable = appended\n",
    ),
    "the syncer marks the wrong record": (
        "journal/syncer",
        "        offset = HEADER_SIZE + (appended - place.base) * RECORD_SIZE\n",
        "        offset = HEADER_SIZE + (appended - 1 - place.base) * RECORD_SIZE\n",
    ),
    "the syncer leaves when its writer dies": (
        "journal/syncer",
        "            leaving = words[STOP] or self._orphaned()\n",
        "            leaving = words[STOP]\n            if self._orphaned():\n                return\n",
    ),
    "the syncer goes on after an error": (
        "journal/syncer",
        "            self.words[STATE] = FAILED\n",
        "            pass\n",
    ),
    "nobody misses the syncer": (
        "journal/syncer",
        "        if self.process.poll() is not None:\n",
        "        if False:\n",
    ),
}


def plant(folder: Path, file: str, line: str, wrong: str) -> None:
    """Change one line of a copy; it must stand there, or the list above is out of date."""
    path = folder / "ferrox" / f"{file}.py"
    source = path.read_text()
    if line not in source:
        raise SystemExit(f"{path.name} has no line {line!r} any more; mend the list of bugs")
    path.write_text(source.replace(line, wrong))


def caught_by(folder: Path) -> str | None:
    """Return the first test that fails on a copy, or None."""
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", *QUIET, *TESTS]
    run = subprocess.run(
        command,
        cwd=folder / "run",
        env=os.environ
        | {
            "FERROX_HYPOTHESIS": "hunt",
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONSAFEPATH": "1",
        },
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if run.returncode == 0:
        return None
    if run.returncode not in (1, 2):
        raise SystemExit(run.stdout[-2000:] + run.stderr[-2000:])
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[-1].split(" ")[1] if failed else "a test that had to be stopped"


def make_copy(folder: Path) -> None:
    """Copy the compiled build, and the tests beside it."""
    shutil.copytree(COMPILED, folder, dirs_exist_ok=True)
    (folder / "run").mkdir()
    for part in ("tests", "specs", "pyproject.toml"):
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / "run" / part)


def main() -> int:
    """Plant every bug, print who caught it, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="plant only these")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.only:
        with tempfile.TemporaryDirectory() as temporary:
            make_copy(Path(temporary))
            if failed := caught_by(Path(temporary)):
                raise SystemExit(f"{failed} fails with nothing planted, so it would catch everything")
    caught: dict[str, str | None] = {}
    for name, (file, line, wrong) in BUGS.items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            make_copy(folder)
            plant(folder, file, line, wrong)
            start = time.monotonic()
            caught[name] = caught_by(folder)
            print(f"{name:<42}{time.monotonic() - start:5.0f} s  {caught[name] or 'SURVIVED'}", flush=True)
    survived = [name for name, test in caught.items() if test is None]
    print(f"\n{len(caught)} planted, {len(caught) - len(survived)} caught")
    if options.json:
        options.json.write_text(json.dumps(caught, indent=1) + "\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
