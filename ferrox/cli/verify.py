"""`ferrox verify`: every byte of a journal, both engines on it, and its snapshots.

One pass does it all: each batch is verified, then told to every engine, and their reports are compared before the next
batch is read.  So memory is that of the engines, and the first difference is found where it is.  An engine that fails
is a difference, too: the other one has said what should have come.
"""

import re
from time import perf_counter
from typing import Any, Final

import click
import numpy as np
from attrs import define

from ferrox.cli.engines import Run, fast_build
from ferrox.cli.output import examples, json_option, per_second, plural, print_json, progress
from ferrox.engine import ENGINES, Capacity
from ferrox.errors import CorruptInput, NotDeterministic
from ferrox.files import joined, names_in
from ferrox.journal import Scan
from ferrox.journal.reader import BATCH, Reading
from ferrox.messages import RECORD, RECORD_DTYPE, RECORD_SIZE, REPORT, REPORT_SIZE, Report
from ferrox.snapshot import SNAPSHOT_NAME, oldest_snapshot, read_snapshot
from ferrox.state import digest
from ferrox.text import format_command, format_report

EXPECTED_FOUND: Final = re.compile(r"expected (.*), found (.*)", re.DOTALL)
STATUS: Final = {"clean": 0, "torn": 0, "different": 1, "corrupt": 3}


@define
class Difference:
    """The first place where two engines say different things."""

    sequence: int
    command: str
    said: dict[str, str]
    """What each engine said, by its name."""


@define
class SnapshotCheck:
    """A snapshot file beside the journal, and what became of it."""

    path: str
    sequence: int
    verdict: str
    """ "equal" to the replay, "different" from it, "corrupt", "origin" where the replay began with it, or "unchecked"
    where the replay did not get there."""
    found: str = ""
    digest: str = ""


@define
class Findings:
    """What verification has found."""

    scan: Scan
    runs: list[Run]
    difference: Difference | None
    snapshots: list[SnapshotCheck]
    seconds: float

    @property
    def origin(self) -> int:
        """The sequence number of the snapshot that the engines began with, 0 where they began with nothing."""
        return self.runs[0].origin if self.runs else 0

    @property
    def engines_agree(self) -> bool:
        """Whether there were two engines and no difference between them."""
        return len(self.runs) > 1 and self.difference is None

    @property
    def verdict(self) -> str:
        """The worst of what was found: "corrupt", "different", "torn" or "clean"."""
        if self.scan.corruption or any(check.verdict == "corrupt" for check in self.snapshots):
            return "corrupt"
        if self.difference or any(check.verdict == "different" for check in self.snapshots):
            return "different"
        return self.scan.verdict


@click.command(
    epilog=examples(
        "ferrox verify flow",
        "ferrox verify flow --json",
        "ferrox verify flow && echo sound",
    )
)
@click.argument("directory", metavar="DIR", type=click.Path())
@json_option
def command(directory: str, as_json: bool) -> int:
    """Check every byte of a journal, and both engines on it.

    Checksums, chain, sequence and times of all records; headers, order and digests of all segments; the commit mark;
    every snapshot file, against the replay at its sequence; and the reports and states of the engines, against each
    other and against what the journal states of the run itself.  Damage is told with file, offset, sequence, what was
    expected and what was found.

    A torn tail is what a crash leaves behind the last durable record. It is told, and is no damage.

    Exit status: 0 sound, 1 the engines, a snapshot or a statement differ, 3 corrupt.
    """
    findings = verify(directory)
    if as_json:
        print_json(to_json(directory, findings))
    else:
        show_findings(findings)
    return STATUS[findings.verdict]


def verify(directory: str) -> Findings:
    """Go through a journal once, with every engine there is."""
    start = perf_counter()
    runs: list[Run] = []
    corruption: CorruptInput | None = None
    difference: Difference | None = None
    with Reading(directory) as reading:
        snapshots = find_snapshots(reading)
        try:
            reading.load()
            for check in snapshots:
                load_snapshot(check, reading.mark.uuid)
            pair = Pair([Recorder(name, reading.segments[0].header.capacity) for name in ENGINES])
            begin(pair, reading, snapshots)
            pair.check_snapshots(snapshots)  # one of sequence 0 is of no record
            runs = [recorder.run for recorder in pair.recorders]
            total = sum(segment.slots for segment in reading.segments)
            with progress("verifying", total, "records") as advance:
                for records in reading.batches(None, None, BATCH):
                    difference = difference or pair.feed(pair.unseen(records), snapshots)
                    advance(len(records) // RECORD_SIZE)
        except CorruptInput as error:
            corruption = error
        difference = difference or compare_states(runs, reading.chain.sequence)
        scan = reading.scan(corruption)
    return Findings(scan, runs, difference, snapshots, perf_counter() - start)


def begin(pair: "Pair", reading: Reading, snapshots: list[SnapshotCheck]) -> None:
    """Let the engines begin with a snapshot where the first record is archived (JRN-20).

    The oldest that the journal goes on from, so that all others are still held against the replay.
    """
    if reading.segments[0].base == 1:
        return
    oldest = oldest_snapshot(reading.directory, reading.mark.uuid, reading.segments[0].base - 1)
    if oldest.path is None:
        return  # it was there when the headers were read; a replay that lacks it says so
    for recorder in pair.recorders:
        recorder.run.restore(oldest.state, oldest.sequence)
    pair.sequence = oldest.sequence
    for check in snapshots:
        if check.sequence == oldest.sequence:
            check.verdict = "origin"


# ------------------------------------------------------------------------------------------------------ the engines


class Recorder:
    """An engine with the reports of the present batch."""

    def __init__(self, name: str, capacity: Capacity) -> None:
        self.parts: list[bytes] = []
        self.run = Run(name, capacity, lambda frames: self.parts.append(bytes(frames)))
        self.failure = ""
        self.differs: NotDeterministic | None = None

    def feed(self, records: bytes) -> bytes:
        """Apply records and return their reports; of an engine that fails, those before the failure."""
        self.parts.clear()
        try:
            self.run.feed(records)
        except NotDeterministic as error:
            self.differs = error
        except Exception as error:  # noqa: BLE001 - whatever an engine raises here is a finding
            self.failure = f"failed: {type(error).__name__}: {error}"
        return b"".join(self.parts)


class Pair:
    """All engines of this build on their way through one journal, side by side."""

    def __init__(self, recorders: list[Recorder]) -> None:
        self.recorders = recorders
        self.differs = False
        self.sequence = 0

    def unseen(self, records: bytes) -> bytes:
        """Return the records of a batch that the state which the engines began with has not seen yet."""
        first = int(RECORD.unpack_from(records)[2])
        return records[max(0, self.sequence + 1 - first) * RECORD_SIZE :]

    def feed(self, records: bytes, snapshots: list[SnapshotCheck]) -> Difference | None:
        """Tell every engine a batch, and return the first difference between their reports.

        After a difference nothing more is compared, for everything that follows may differ by it.
        """
        if self.differs:
            return None
        while records:
            count = len(records) // RECORD_SIZE
            stops = [check.sequence for check in snapshots if self.sequence < check.sequence < self.sequence + count]
            part = records[: (min(stops) - self.sequence) * RECORD_SIZE] if stops else records
            records = records[len(part) :]
            self.sequence += len(part) // RECORD_SIZE
            answers = [recorder.feed(part) for recorder in self.recorders]
            for recorder, answer in zip(self.recorders[1:], answers[1:], strict=True):
                one = self.recorders[0]
                if answer != answers[0] or recorder.failure or one.failure:
                    self.differs = True
                    return first_difference(part, (one, answers[0]), (recorder, answer))
            if any(recorder.differs for recorder in self.recorders):
                self.differs = True
                return from_statement(self.recorders)
            if self.recorders[0].failure:  # alone, and nobody to compare with
                self.differs = True
                return first_difference(part, (self.recorders[0], answers[0]), None)
            self.check_snapshots(snapshots)
        return None

    def check_snapshots(self, snapshots: list[SnapshotCheck]) -> None:
        """Hold the snapshot files of this sequence against the state that the replay came to."""
        for check in snapshots:
            if check.sequence == self.sequence and check.verdict == "unchecked":
                expected = self.recorders[0].run.state_digest()
                check.verdict = "equal" if check.digest == expected else "different"
                if check.digest != expected:
                    check.found = f"expected state {expected}, as the replay has it, found {check.digest}"


def from_statement(recorders: list[Recorder]) -> Difference:
    """Return how what the engines say now differs from what the journal states of the run (JRN-21)."""
    said = {recorder.run.name: str(recorder.differs) for recorder in recorders if recorder.differs}
    sequence = min(recorder.differs.last + 1 for recorder in recorders if recorder.differs)
    return Difference(sequence, "(the MARK there states what the engine said that ran with the journal)", said)


def compare_states(runs: list[Run], sequence: int) -> Difference | None:
    """Return how the final states differ where all reports were equal, or None."""
    digests = {run.name: final_digest(run) for run in runs}
    if len(set(digests.values())) <= 1:
        return None
    return Difference(sequence, "(all reports are equal, the states are not)", digests)


def final_digest(run: Run) -> str:
    """Return the digest of an engine's state, or how it fails to tell it."""
    try:
        return run.state_digest()
    except Exception as error:  # noqa: BLE001 - whatever an engine raises here is a finding
        return f"failed: {type(error).__name__}: {error}"


def first_difference(records: bytes, one: tuple[Recorder, bytes], two: tuple[Recorder, bytes] | None) -> Difference:
    """Return the first report at which two engines part, with the command that led to it."""
    base = RECORD.unpack_from(records)[2]
    last = base + len(records) // RECORD_SIZE - 1
    if two is None:
        recorder, answer = one
        sequence = unpack_at(answer, len(answer) - REPORT_SIZE).sequence + 1 if answer else base
        return Difference(sequence, command_at(records, sequence - base), {recorder.run.name: recorder.failure})
    place = common_prefix(one[1], two[1])
    told = [answer[place : place + REPORT_SIZE] for _, answer in (one, two)]
    sequence = min([unpack_at(frame, 0).sequence for frame in told if frame], default=last)
    said = {
        recorder.run.name: recorder.failure if not frame and recorder.failure else describe(frame)
        for (recorder, _), frame in zip((one, two), told, strict=True)
    }
    return Difference(sequence, command_at(records, sequence - base), said)


def common_prefix(one: bytes, two: bytes) -> int:
    """Return the offset of the first report that differs, or the end of the shorter stream."""
    whole = min(len(one), len(two))
    unequal = np.frombuffer(one[:whole], np.uint8) != np.frombuffer(two[:whole], np.uint8)
    return int(unequal.argmax()) // REPORT_SIZE * REPORT_SIZE if unequal.any() else whole


def unpack_at(reports: bytes, offset: int) -> Report:
    """Return the report at an offset."""
    return Report._make(REPORT.unpack_from(reports, offset))


def describe(frame: bytes) -> str:
    """Return a report in words and with every field, or that there is none."""
    if not frame:
        return "no report"
    report = unpack_at(frame, 0)
    return f"{format_report(report)}  {report!r}"


def command_at(records: bytes, index: int) -> str:
    """Return the command of a record as text."""
    if not 0 <= index < len(records) // RECORD_SIZE:
        return "(no command)"
    record = np.frombuffer(records, RECORD_DTYPE)[index]
    return format_command(record["command"].tobytes()[: int(record["size"]) or None])


# ---------------------------------------------------------------------------------------------------- the snapshots


def find_snapshots(reading: Reading) -> list[SnapshotCheck]:
    """Return the snapshot files of a journal's directory, by ascending sequence."""
    matches = filter(None, map(SNAPSHOT_NAME.fullmatch, names_in(reading.descriptor)))
    return [SnapshotCheck(joined(reading.directory, match[0]), int(match[1]), "unchecked") for match in matches]


def load_snapshot(check: SnapshotCheck, uuid: bytes) -> None:
    """Verify a snapshot file and keep its digest for the moment the replay gets there."""
    try:
        check.digest = digest(read_snapshot(check.path, uuid))
    except CorruptInput as error:
        check.verdict, check.found = "corrupt", str(error)


# ---------------------------------------------------------------------------------------------------- what was found


def corruption_json(corruption: CorruptInput | None) -> dict[str, Any] | None:
    """Return damage as JSON has it, with the place, what was expected and what was found where they are known."""
    if corruption is None:
        return None
    found = getattr(corruption, "found", "")
    match = EXPECTED_FOUND.fullmatch(found)
    return {
        "path": getattr(corruption, "path", None),
        "offset": getattr(corruption, "offset", None),
        "sequence": getattr(corruption, "sequence", None),
        "expected": match[1] if match else None,
        "found": match[2] if match else found or None,
        "message": str(corruption),
    }


def to_json(directory: str, findings: Findings) -> dict[str, Any]:
    """Return all findings as one object."""
    scan, difference = findings.scan, findings.difference
    runs = {run.name: run for run in findings.runs}
    engines = {
        name: {
            "build": fast_build() if name == "fast" else "interpreted",
            "reports": runs[name].reports if name in runs else None,
            "trades": runs[name].trades if name in runs else None,
            "state_digest": final_digest(runs[name]) if name in runs else None,
            "reports_digest": runs[name].reports_digest if name in runs else None,
            "commands_per_second": per_second(runs[name].commands, runs[name].seconds) if name in runs else None,
        }
        for name in ENGINES
    }
    return {
        "verb": "verify",
        "directory": directory,
        "verdict": findings.verdict,
        "journal": scan.verdict,
        "commands": findings.runs[0].commands if findings.runs else 0,
        "segments": list(scan.segments),
        "first_sequence": scan.first,
        "began_with_snapshot": findings.origin or None,
        "last_sequence": scan.last,
        "durable_sequence": scan.durable,
        "sealed": scan.sealed,
        "engines": engines,
        "engines_equal": findings.engines_agree if len(runs) > 1 else None,
        "difference": difference
        and {"sequence": difference.sequence, "command": difference.command, "reports": difference.said},
        "corruption": corruption_json(scan.corruption),
        "torn": scan.torn
        and {
            "path": scan.torn.path,
            "offset": scan.torn.offset,
            "sequence": scan.torn.sequence,
            "size": scan.torn.size,
        },
        "snapshots": [
            {"path": check.path, "sequence": check.sequence, "verdict": check.verdict, "found": check.found or None}
            for check in findings.snapshots
        ],
        "warnings": list(scan.warnings),
        "seconds": round(findings.seconds, 3),
    }


def show_findings(findings: Findings) -> None:
    """Print all findings for people, the verdict last."""
    from ferrox.cli.terminal import BAD, DIM, GOOD, facts, show, styled

    scan = findings.scan
    pairs: list[tuple[str, Any]] = []
    count = scan.last - scan.first + 1 if scan.last else 0
    kinds = f"{plural(count, 'record')} in {plural(len(scan.segments), 'segment')}"
    pairs.append(("journal", f"{kinds}, durable up to sequence {scan.durable}{', sealed' if scan.sealed else ''}"))
    if findings.origin:
        began = (
            f"at sequence {findings.origin + 1}, with the snapshot of {findings.origin}: what was before is archived"
        )
        pairs.append(("begins", began))
    for name in ENGINES:
        run = next((run for run in findings.runs if run.name == name), None)
        if run is None:
            pairs.append((name, styled(("not run", DIM))))
            continue
        build = " (interpreted)" if name == "fast" and fast_build() == "interpreted" else ""
        rate = f"{per_second(run.commands, run.seconds):,} commands a second{build}"
        pairs.append((name, f"{plural(run.commands, 'command')}, {plural(run.reports, 'report')}, {rate}"))
        pairs.append(("  state", final_digest(run)))
        pairs.append(("  reports", run.reports_digest))
    pairs += [
        ("snapshot", f"{check.path}: {check.verdict}{f': {check.found}' if check.found else ''}")
        for check in findings.snapshots
    ]
    show(*facts(pairs))
    for warning in scan.warnings:
        show(styled(("warning   ", DIM), warning))
    if scan.torn:
        show(styled(("torn      ", DIM), f"{scan.torn}; this is what a crash leaves, and no damage"))
    if findings.difference:
        difference = findings.difference
        show(styled(("differs   ", BAD), f"first at sequence {difference.sequence}: {difference.command}"))
        for name, said in difference.said.items():
            show(f"          {name}: {said}")
    if scan.corruption:
        show(styled(("corrupt   ", BAD), str(scan.corruption)))
    verdict = findings.verdict
    words = {
        "clean": "sound",
        "torn": "sound up to the torn tail",
        "different": "DIFFERENT",
        "corrupt": "CORRUPT",
    }[verdict]
    agreement = f", the engines agree up to sequence {scan.last}" if findings.engines_agree else ""
    show(styled("", (f"{words}{agreement}", GOOD if STATUS[verdict] == 0 else BAD)))
