"""`ferrox inspect`: what stands in a journal, a segment, a commit mark or a snapshot, sound or not.

Nothing here refuses to look.  A header is decoded as it stands, checked apart from that, and whatever fails its checks
is shown beside what it says.  `verify` judges; this shows.

Segments are read in batches and their records checked in whole arrays, so a journal of any length takes a constant
memory; the table reads only the records that it shows.
"""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Final

import click
import numpy as np
from attrs import Factory, define
from numpy.typing import NDArray

from ferrox.cli.books import book_json, books_of, view_snapshot
from ferrox.cli.engines import FIRST_ANNOTATION
from ferrox.cli.output import examples, json_option, plural, print_json, progress, show_bytes, show_span, show_time
from ferrox.errors import CorruptInput, UsageError
from ferrox.files import is_zero
from ferrox.journal import COMMIT_MARK, SEGMENT_HEADER, Scan, scan
from ferrox.journal.chain import Chain, checksums
from ferrox.journal.layout import (
    HEADER_SIZE,
    MARK_MAGIC,
    MARK_NAME,
    MARK_SECTOR,
    MARK_SIZE,
    SEGMENT_MAGIC,
    SEGMENT_NAME,
    unpack_header,
    unpack_marks,
)
from ferrox.messages import COMMAND_SIZE, RECORD, RECORD_DTYPE, RECORD_SIZE
from ferrox.snapshot import (
    BLOCK_SIZE,
    CRC_SIZE,
    SNAPSHOT_FILE,
    SNAPSHOT_MAGIC,
    SNAPSHOT_NAME,
    TRAILER_SIZE,
    read_snapshot,
)
from ferrox.state import SNAPSHOT_HEADER, STATE_MAGIC
from ferrox.terms import SEQUENCE_MAX, Annotation, CommandKind
from ferrox.text import SIDE_WORDS, format_command, format_order_id

BATCH: Final = 4096
FLAWS_SHOWN: Final = 20
"""Records out of order that are told one by one; all of them are counted."""
HEADER_FIELDS: Final = (
    "magic",
    "format_version",
    "record_size",
    "byte_order",
    "uuid",
    "epoch",
    "base_sequence",
    "created_ns",
    "salt",
    "prev_chain",
    "prev_sha256",
    "rules_version",
    "order_capacity",
    "instrument_capacity",
    "segment_records",
    "crc",
)
MARK_FIELDS: Final = ("magic", "uuid", "epoch", "durable", "chain", "crc")
SNAPSHOT_FIELDS: Final = ("magic", "format_version", "reserved", "block_size", "uuid", "sequence", "body_size", "crc")
IN_HEX: Final = ("byte_order", "salt", "prev_chain", "chain", "crc")
KIND_WORDS: Final = {int(kind): kind.name.lower().replace("_", "-") for kind in (*CommandKind, *Annotation)}


@click.command(
    epilog=examples(
        "ferrox inspect flow",
        "ferrox inspect flow --from 5000 --limit 20",
        "ferrox inspect flow/00000000000000000001-00000001.wal --hex --limit 2",
        "ferrox inspect flow/commit.mark",
        "zcat segment.wal.gz | ferrox inspect -",
        "ferrox inspect flow --json",
    )
)
@click.argument("path", metavar="PATH", type=click.Path(allow_dash=True))
@click.option(
    "--from",
    "first",
    type=click.IntRange(1, SEQUENCE_MAX),
    default=1,
    metavar="SEQ",
    help="First record to show, by sequence number; of a snapshot, the first order, from 1.",
)
@click.option(
    "--limit",
    type=click.IntRange(0, SEQUENCE_MAX),
    default=10,
    show_default=True,
    metavar="N",
    help="How many records or orders to show; 0 for none.",
)
@click.option("--hex", "with_hex", is_flag=True, help="Show the bytes, too.")
@json_option
def command(path: str, first: int, limit: int, with_hex: bool, as_json: bool) -> int:
    """Show a journal, a segment, a commit mark or a snapshot to people.

    Headers, counts, first and last times, and a table of records with their commands as text.  Damage is shown where it
    is and stops nothing: inspect looks, verify judges.
    """
    if path == "-":
        with TemporaryDirectory(prefix="ferrox-") as temporary:  # a pipe cannot be gone back in
            path = f"{temporary}/standard-input"
            with Path(path).open("wb") as copy:
                try:
                    shutil.copyfileobj(sys.stdin.buffer, copy)
                except OSError as error:
                    raise UsageError(f"standard input, or its copy {path}: {error.strerror}") from error
            return inspect_file(path, first, limit, with_hex=with_hex, as_json=as_json)
    if Path(path).is_dir():
        return inspect_journal(path, first, limit, with_hex=with_hex, as_json=as_json)
    return inspect_file(path, first, limit, with_hex=with_hex, as_json=as_json)


def inspect_file(path: str, first: int, limit: int, *, with_hex: bool, as_json: bool) -> int:
    """Show a file, whichever of ours it is."""
    with open_any(path) as file:
        kind = kind_of(path, file)
        if kind == "snapshot":
            return inspect_snapshot(path, file, first, limit, with_hex=with_hex, as_json=as_json)
        if kind == "commit mark":
            return inspect_mark(path, file, with_hex=with_hex, as_json=as_json)
        return inspect_segment(path, file, first, limit, with_hex=with_hex, as_json=as_json)


def open_any(path: str) -> BinaryIO:
    """Open a file for reading, whatever it holds; what is no file (a pipe, a device) is not waited for."""
    if not Path(path).exists():
        raise UsageError(f"{path}: there is no such file or directory")
    if not Path(path).is_file():
        raise UsageError(f"{path}: this is neither a file nor a directory")
    return Path(path).open("rb")


def kind_of(path: str, file: BinaryIO) -> str:
    """Return what a file is, by its first bytes, or by its name where those are damaged."""
    magic = file.read(8)
    file.seek(0)
    name = Path(path).name
    for kind, magics, named in (
        ("snapshot", (SNAPSHOT_MAGIC, STATE_MAGIC), name.endswith(".snapshot")),
        ("commit mark", (MARK_MAGIC,), name == MARK_NAME),
        ("segment", (SEGMENT_MAGIC,), name.endswith((".wal", ".wal.torn"))),
    ):
        if magic in magics or (named and magic not in (SNAPSHOT_MAGIC, STATE_MAGIC, MARK_MAGIC, SEGMENT_MAGIC)):
            return kind
    found = f"begins with {magic.hex(' ')}" if magic else "is empty"
    raise CorruptInput(
        f"{path}: this file {found}, and is no segment (*.wal), no snapshot (*.snapshot) and no {MARK_NAME}, "
        "neither by its first bytes nor by its name"
    )


# ------------------------------------------------------------------------------------------------------- segments


@define
class Segment:
    """A segment as it lies there, with all that is in order and all that is not."""

    path: str
    size: int
    header: dict[str, Any]
    """The fields as they stand; empty when the file is too short for them."""
    header_flaw: str
    base: int
    """By the name where that has one, otherwise by the header."""
    salt: int
    records: int = 0
    """Slots that hold anything."""
    zeros: int = 0
    """Slots that hold nothing."""
    rest: int = 0
    """Bytes behind the last whole slot."""
    kinds: Counter[int] = Factory(Counter)
    first_time: int | None = None
    last_time: int | None = None
    flawed: int = 0
    flaws: list[dict[str, Any]] = Factory(list)

    def note(self, flaw: str, sequence: int) -> None:
        """Take down a record that is out of order."""
        self.flawed += 1
        if len(self.flaws) < FLAWS_SHOWN:
            offset = HEADER_SIZE + RECORD_SIZE * (sequence - self.base)
            self.flaws.append({"offset": offset, "sequence": sequence, "flaw": flaw})


def read_header(path: str, file: BinaryIO) -> Segment:
    """Return a segment of which only the header has been read."""
    name = Path(path).name
    page = file.read(HEADER_SIZE)
    match = SEGMENT_NAME.fullmatch(name)
    header: dict[str, Any] = {}
    flaw = ""
    if len(page) >= SEGMENT_HEADER.size:
        header = dict(zip(HEADER_FIELDS, SEGMENT_HEADER.unpack_from(page), strict=True))
    if header and not match:  # a copy under another name is no damage
        name = f"{header['base_sequence']:020d}-{header['epoch']:08x}.wal"
    try:
        unpack_header(page, name, path)
    except CorruptInput as error:
        flaw = str(error)
    size = os.fstat(file.fileno()).st_size
    base = int(match[1]) if match else header.get("base_sequence", 1)
    base = base if 1 <= base <= SEQUENCE_MAX else 1
    return Segment(path, size, header, flaw, base, header.get("salt", 0))


def survey(segment: Segment, file: BinaryIO, advance: Any) -> None:
    """Go over all records of a segment: count the kinds, and check each."""
    chain = Chain(segment.salt, segment.header.get("prev_chain", 0), segment.base - 1, 0)
    file.seek(HEADER_SIZE)
    zeros_before = 0
    while data := file.read(BATCH * RECORD_SIZE):
        whole = data[: len(data) // RECORD_SIZE * RECORD_SIZE]
        segment.rest = len(data) - len(whole)
        if is_zero(whole):
            zeros_before += len(whole) // RECORD_SIZE
            advance(len(whole) // RECORD_SIZE)
            continue
        if zeros_before:
            segment.note(
                f"expected a record, found {plural(zeros_before, 'slot')} of zeros before this", chain.sequence
            )
            segment.records += zeros_before
            chain.sequence += zeros_before
            zeros_before = 0
        zeros_before = note_batch(segment, chain, whole)
        advance(len(whole) // RECORD_SIZE)
    segment.zeros = zeros_before


def note_batch(segment: Segment, chain: Chain, records: bytes) -> int:
    """Take down a batch that holds something; return how many slots of zeros it ends with."""
    count = -(-len(records.rstrip(b"\0")) // RECORD_SIZE)
    fields = np.frombuffer(records, RECORD_DTYPE, count)
    done = 0
    while done < count:
        passed = chain.follow(records[done * RECORD_SIZE : count * RECORD_SIZE])
        done += passed
        if done < count:
            record = records[done * RECORD_SIZE : (done + 1) * RECORD_SIZE]
            segment.note(chain.flaw(record), chain.sequence + 1)
            chain.checksum = int(fields["crc"][done])
            chain.sequence += 1
            chain.time_ns = max(chain.time_ns, plausible_time(int(fields["time_ns"][done])))
            done += 1
            if segment.flawed >= FLAWS_SHOWN:  # a segment of garbage would be a step for each record
                segment.flawed += count_flawed(segment, fields[done:], chain)
                if done < count:
                    chain.checksum, chain.sequence = int(fields["crc"][-1]), chain.sequence + count - done
                done = count
    segment.records += count
    for kind, number in enumerate(np.bincount(fields["kind"], minlength=256).tolist()):
        if number:
            segment.kinds[kind] += number
    if count:
        segment.first_time = int(fields["time_ns"][0]) if segment.first_time is None else segment.first_time
        segment.last_time = int(fields["time_ns"][-1])
    return len(records) // RECORD_SIZE - count


def plausible_time(time_ns: int) -> int:
    """Return a time that later ones are held against: that of a damaged record only where it can be one."""
    return time_ns if 0 <= time_ns < 1 << 62 else 0


def count_flawed(segment: Segment, fields: "NDArray[np.void]", chain: Chain) -> int:
    """Return how many records fail their own checksum or stand in another's place."""
    expected = np.arange(chain.sequence + 1, chain.sequence + 1 + len(fields))
    sound = (fields["crc"] == checksums(fields.tobytes(), segment.salt)) & (fields["sequence"] == expected)
    return int(np.count_nonzero(~sound))


def rows_of(segment: Segment, file: BinaryIO, first: int, limit: int, *, with_hex: bool) -> Iterator[dict[str, Any]]:
    """Give the records from a sequence number on, as they stand, each with its flaw if it has one."""
    start = max(first, segment.base)
    offset = HEADER_SIZE + RECORD_SIZE * (start - segment.base)
    chain = Chain(segment.salt, segment.header.get("prev_chain", 0), start - 1, 0)
    if start > segment.base and offset - RECORD_SIZE < segment.size:
        file.seek(offset - RECORD_SIZE)
        chain.checksum = int.from_bytes(file.read(4), "little")
    if offset >= segment.size:
        return
    file.seek(offset)
    for _ in range(limit):
        record = file.read(RECORD_SIZE)
        if not record:
            return
        if is_zero(record) and is_zero(rest := file.read(BATCH * RECORD_SIZE)) and len(rest) < BATCH * RECORD_SIZE:
            return  # prepared space: nothing follows
        file.seek(offset + len(record))
        yield row_of(record, offset, chain, with_hex=with_hex)
        offset += RECORD_SIZE


def row_of(record: bytes, offset: int, chain: Chain, *, with_hex: bool) -> dict[str, Any]:
    """Return one record as it stands, and let the chain go on behind it."""
    sequence = chain.sequence + 1
    flaw = "" if len(record) == RECORD_SIZE and chain.follow(record) else chain.flaw(record)
    row: dict[str, Any] = {"sequence": sequence, "offset": offset, "flaw": flaw or None}
    if flaw:
        chain.sequence = sequence
    if len(record) == RECORD_SIZE:
        crc, _, _, time_ns, kind, size, session, lag, *_ = RECORD.unpack(record)
        chain.checksum = crc
        frame = record[RECORD_SIZE - COMMAND_SIZE :]
        command_text = (
            f"({KIND_WORDS.get(kind, kind)})"
            if kind >= FIRST_ANNOTATION
            else format_command(frame[:16] if size == 16 and is_zero(frame[16:]) else frame)
        )
        row |= {
            "time_ns": time_ns,
            "kind": KIND_WORDS.get(kind, str(kind)),
            "session": session,
            "lag": lag,
            "text": command_text,
        }
    if with_hex:
        row["hex"] = record.hex()
    return row


def segment_json(segment: Segment) -> dict[str, Any]:
    """Return a segment as JSON has it."""
    return {
        "path": segment.path,
        "bytes": segment.size,
        "header": shown_fields(segment.header),
        "header_flaw": segment.header_flaw or None,
        "first_sequence": segment.base if segment.records else 0,
        "last_sequence": segment.base + segment.records - 1 if segment.records else 0,
        "first_time_ns": segment.first_time,
        "last_time_ns": segment.last_time,
        "kinds": {KIND_WORDS.get(kind, str(kind)): count for kind, count in sorted(segment.kinds.items())},
        "empty_slots": segment.zeros,
        "rest_bytes": segment.rest,
        "flawed_records": segment.flawed,
        "flaws": segment.flaws,
    }


def shown_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a header with bytes and checksums in hexadecimal."""
    return {
        name: value.hex() if isinstance(value, bytes) else f"{value:08x}" if name in IN_HEX else value
        for name, value in fields.items()
    }


def inspect_segment(path: str, file: BinaryIO, first: int, limit: int, *, with_hex: bool, as_json: bool) -> int:
    """Show one segment."""
    segment = read_header(path, file)
    if path.endswith(".torn"):  # what recovery cut off has no header of its own
        return inspect_torn(path, file, limit, with_hex=with_hex, as_json=as_json)
    with progress("reading", max(0, segment.size - HEADER_SIZE) // RECORD_SIZE, "records") as advance:
        survey(segment, file, advance)
    rows = rows_of(segment, file, first, limit, with_hex=with_hex)
    if as_json:
        print_json({"verb": "inspect", "kind": "segment"} | segment_json(segment) | {"records": list(rows)})
        return 0
    from ferrox.cli.terminal import facts, show

    pairs = [("segment", f"{path}  {show_bytes(segment.size)}")]
    pairs += [(name, str(value)) for name, value in shown_fields(segment.header).items()]
    show(*facts(pairs + contents_of(segment)))
    if segment.header_flaw:
        show_flaw(segment.header_flaw)
    show_flaws(segment)
    if with_hex:
        file.seek(0)
        show_hex(file.read(SEGMENT_HEADER.size))
    show_rows(rows)
    return 0


def contents_of(segment: Segment) -> list[tuple[str, str]]:
    """Return what a segment holds, as facts."""
    if not segment.records:
        return [("records", "none")]
    last = segment.base + segment.records - 1
    pairs = [
        ("records", f"{segment.records:,}, sequence {segment.base} to {last}"),
        ("kinds", show_kinds(segment.kinds)),
        ("time", show_span(segment.first_time or 0, segment.last_time or 0)),
    ]
    if segment.zeros:
        pairs.append(("empty", plural(segment.zeros, "prepared slot")))
    return pairs


def show_kinds(kinds: "Counter[int] | dict[int, int]") -> str:
    """Return counts by kind, the most frequent first."""
    named: Counter[str] = Counter()
    for kind, count in sorted(kinds.items()):
        named[KIND_WORDS.get(kind, "of unknown kind")] += count
    return ", ".join(f"{count:,} {word}" for word, count in named.most_common())


def show_flaw(flaw: str) -> None:
    """Print what is out of order."""
    from ferrox.cli.terminal import BAD, show, styled

    show(styled(("damage  ", BAD), flaw))


def show_flaws(segment: Segment) -> None:
    """Print the records that are out of order."""
    for flaw in segment.flaws:
        show_flaw(f"offset {flaw['offset']}, sequence {flaw['sequence']}: {flaw['flaw']}")
    if segment.flawed > len(segment.flaws):
        show_flaw(f"and {plural(segment.flawed - len(segment.flaws), 'record')} more")
    if segment.rest:
        show_flaw(f"{plural(segment.rest, 'byte')} behind the last whole record")


def show_rows(rows: "Iterator[dict[str, Any]] | list[dict[str, Any]]") -> None:
    """Print a table of records; what is out of order is marked and told."""
    from rich.text import Text

    from ferrox.cli.terminal import BAD, DIM, show, styled, table

    chosen = list(rows)
    if not chosen:
        return
    cells: list[list[str | Text]] = [
        [
            f"{row['sequence']}",
            show_time(row["time_ns"]) if row.get("time_ns") else "-",
            Text.assemble((" ! ", BAD) if row["flaw"] else "   ", row.get("text", "")),
        ]
        for row in chosen
    ]
    head, *lines = table(("sequence", "time", "   command"), cells, left=(1, 2))
    show("", head)
    for row, line in zip(chosen, lines, strict=True):
        show(line)
        if row["flaw"]:
            show(styled((f"          {row['flaw']}", BAD)))
        if "hex" in row:
            data = bytes.fromhex(row["hex"])
            for offset in range(0, len(data), 32):
                show(styled((f"          {row['offset'] + offset:>10}  {data[offset : offset + 32].hex(' ', 4)}", DIM)))


def show_hex(data: bytes) -> None:
    """Print the bytes of a header."""
    from ferrox.cli.terminal import DIM, show, styled

    show("")
    for offset in range(0, len(data), 32):
        show(styled((f"{offset:>10}  {data[offset : offset + 32].hex(' ', 4)}", DIM)))


def inspect_torn(path: str, file: BinaryIO, limit: int, *, with_hex: bool, as_json: bool) -> int:
    """Show a torn tail that recovery kept: records as they stand, of which nobody was told that they would last."""
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    rows: list[dict[str, Any]] = []
    for index in range(min(limit, -(-size // RECORD_SIZE))):
        record = file.read(RECORD_SIZE)
        sequence = RECORD.unpack(record)[2] if len(record) == RECORD_SIZE else 0
        row = row_of(record, index * RECORD_SIZE, Chain(0, 0, sequence - 1, 0), with_hex=with_hex)
        rows.append(row | {"flaw": None if len(record) == RECORD_SIZE else "cut off here"})
    if as_json:
        print_json({"verb": "inspect", "kind": "torn tail", "path": path, "bytes": size, "records": rows})
        return 0
    from ferrox.cli.terminal import facts, show

    shown = f"{path}  {show_bytes(size)}, cut off by recovery and never acknowledged; unchecked below"
    show(*facts([("torn tail", shown)]))
    show_rows(rows)
    return 0


# ------------------------------------------------------------------------------------------------------- journals


def inspect_journal(directory: str, first: int, limit: int, *, with_hex: bool, as_json: bool) -> int:
    """Show a journal's directory."""
    found: Scan = scan(directory)
    paths = sorted(Path(directory).glob("*.wal"))
    segments: list[Segment] = []
    rows: list[dict[str, Any]] = []
    total = sum(max(0, path.lstat().st_size - HEADER_SIZE) // RECORD_SIZE for path in paths)
    with progress("reading", total, "records") as advance:
        for path in paths:
            try:
                with open_any(str(path)) as file:
                    segment = read_header(str(path), file)
                    survey(segment, file, advance)
                    if len(rows) < limit:
                        rows += rows_of(segment, file, first, limit - len(rows), with_hex=with_hex)
            except (OSError, UsageError) as error:  # not readable, or no file at all
                segment = Segment(str(path), 0, {}, str(error), 0, 0)
            segments.append(segment)
    snapshots = sorted(place.name for place in Path(directory).iterdir() if SNAPSHOT_NAME.fullmatch(place.name))
    if as_json:
        print_json(
            {
                "verb": "inspect",
                "kind": "journal",
                "directory": directory,
                "verdict": found.verdict,
                "message": str(found.corruption or found.torn or "") or None,
                "first_sequence": found.first,
                "last_sequence": found.last,
                "durable_sequence": found.durable,
                "sealed": found.sealed,
                "kinds": {KIND_WORDS.get(kind, str(kind)): count for kind, count in found.kinds.items()},
                "segments": [segment_json(segment) for segment in segments],
                "snapshots": snapshots,
                "warnings": list(found.warnings),
                "records": rows,
            }
        )
        return 0
    show_journal(found, segments, snapshots)
    if with_hex and paths:
        for path in paths:
            show_header_hex(path)
    show_rows(rows)
    return 0


def show_header_hex(path: Path) -> None:
    """Print the bytes of a segment's header."""
    from ferrox.cli.terminal import show

    show("", str(path))
    with open_any(str(path)) as file:
        show_hex(file.read(SEGMENT_HEADER.size))


def show_journal(found: Scan, segments: list[Segment], snapshots: list[str]) -> None:
    """Print what a journal is, and each of its segments."""
    from ferrox.cli.terminal import BAD, GOOD, facts, show, styled, table

    verdict = styled((found.verdict, BAD if found.corruption else GOOD), ", sealed" if found.sealed else "")
    pairs: list[tuple[str, Any]] = [("journal", found.directory), ("verdict", verdict)]
    if found.header:
        header = found.header
        pairs += [
            ("uuid", header.uuid.hex()),
            ("rules", f"version {header.rules_version}"),
            ("capacity", f"{header.order_capacity:,} orders, {header.instrument_capacity:,} instruments"),
        ]
    if found.first > 1:
        pairs.append(("begins", "behind what is archived; a replay begins with a snapshot"))
    if found.last:
        pairs.append(("records", f"sequence {found.first} to {found.last}, durable up to {found.durable}"))
        pairs.append(("kinds", show_kinds(found.kinds)))
    times = [time for segment in segments for time in (segment.first_time, segment.last_time) if time is not None]
    if times:
        pairs.append(("time", show_span(times[0], times[-1])))
    pairs += [("snapshot", name) for name in snapshots]
    show(*facts(pairs))
    for warning in found.warnings:
        show(styled(("warning  ", BAD), warning))
    if found.torn:
        show(styled(("torn  ", BAD), str(found.torn)))
    if found.corruption:
        show_flaw(str(found.corruption))
    rows = [
        [
            Path(segment.path).name,
            str(segment.header.get("epoch", "")),
            str(segment.base),
            f"{segment.records:,}",
            show_bytes(segment.size),
            "header" if segment.header_flaw else f"{segment.flawed:,}" if segment.flawed else "-",
        ]
        for segment in segments
    ]
    show("", *table(("segment", "epoch", "base", "records", "size", "flaws"), rows, left=(0,)))
    for segment in segments:
        show_flaws(segment)


# ----------------------------------------------------------------------------------------------------- commit marks


def inspect_mark(path: str, file: BinaryIO, *, with_hex: bool, as_json: bool) -> int:
    """Show both slots of a commit mark."""
    page = file.read(MARK_SIZE + 1)
    flaw, used = "", None
    warnings: list[str] = []
    try:
        _, used, warnings = unpack_marks(page, path)
    except CorruptInput as error:
        flaw = str(error)
    slots = [
        dict(zip(MARK_FIELDS, COMMIT_MARK.unpack_from(page, offset), strict=True))
        for offset in (0, MARK_SECTOR)
        if len(page) >= offset + COMMIT_MARK.size
    ]
    if as_json:
        value = {"verb": "inspect", "kind": "commit mark", "path": path, "bytes": len(page), "used_slot": used}
        print_json(
            value | {"slots": [shown_fields(slot) for slot in slots], "flaw": flaw or None, "warnings": warnings}
        )
        return 0
    from ferrox.cli.terminal import facts, show

    for index, slot in enumerate(slots):
        counts = "  (the one that counts)" if index == used else ""
        pairs = [("slot", f"{index}, offset {index * MARK_SECTOR}{counts}")]
        show(*facts(pairs + [(name, str(value)) for name, value in shown_fields(slot).items()]), "")
    for line in [*warnings, *([flaw] if flaw else [])]:
        show_flaw(line)
    if with_hex:
        for offset in (0, MARK_SECTOR):
            show_hex(page[offset : offset + COMMIT_MARK.size])
    return 0


# -------------------------------------------------------------------------------------------------------- snapshots


def inspect_snapshot(path: str, file: BinaryIO, first: int, limit: int, *, with_hex: bool, as_json: bool) -> int:
    """Show a snapshot file, or a bare state as an engine gives it."""
    header: dict[str, Any] = {}
    flaw = ""
    head = file.read(SNAPSHOT_FILE.size)
    if head.startswith(STATE_MAGIC):
        state = head + file.read()
    else:
        if len(head) == SNAPSHOT_FILE.size:
            header = dict(zip(SNAPSHOT_FIELDS, SNAPSHOT_FILE.unpack(head), strict=True))
        try:
            state = read_snapshot(path)
        except CorruptInput as error:
            flaw = str(error)
            state = unchecked_state(file)
    if len(state) < SNAPSHOT_HEADER.size:
        flaw = flaw or f"{path}: expected a state of at least {SNAPSHOT_HEADER.size} bytes, found {len(state)}"
        state = state.ljust(SNAPSHOT_HEADER.size, b"\0")
    parts = view_snapshot(state)
    orders = parts.orders[first - 1 : first - 1 + limit]
    try:
        books = list(books_of(state, 1))
    except (ValueError, IndexError):  # a damaged state need not be in order
        books = []
    if as_json:
        print_json(
            {
                "verb": "inspect",
                "kind": "snapshot",
                "path": path,
                "bytes": os.fstat(file.fileno()).st_size,
                "header": shown_fields(header),
                "flaw": flaw or None,
                "sequence": parts.sequence,
                "time_ns": parts.time_ns,
                "order_capacity": parts.order_capacity,
                "instrument_capacity": parts.instrument_capacity,
                "instruments": len(parts.instruments),
                "orders": len(parts.orders),
                "books": [book_json(book, depth=False) for book in books],
                "records": [{name: int(order[name]) for name in order.dtype.names or ()} for order in orders],
            }
        )
        return 0
    from ferrox.cli.render import tops
    from ferrox.cli.terminal import facts, show, table

    pairs = [("snapshot", f"{path}  {show_bytes(os.fstat(file.fileno()).st_size)}")]
    pairs += [(name, str(value)) for name, value in shown_fields(header).items()]
    pairs += [
        ("state", f"sequence {parts.sequence}, clock {show_time(parts.time_ns)}"),
        ("capacity", f"{parts.order_capacity:,} orders, {parts.instrument_capacity:,} instruments"),
        ("holds", f"{plural(len(parts.instruments), 'instrument')}, {plural(len(parts.orders), 'order')}"),
    ]
    show(*facts(pairs))
    if flaw:
        show_flaw(flaw)
    if books:
        show("", *tops(books))
    if with_hex:
        show_hex(head + state[: SNAPSHOT_HEADER.size])
    if len(orders):
        rows = [
            [
                str(first + index),
                format_order_id(int(order["order_id"])),
                str(order["instrument"]),
                SIDE_WORDS.get(int(order["side"]), str(order["side"])),
                str(order["price"]),
                f"{order['leaves']:,}",
                f"{order['filled']:,}",
            ]
            for index, order in enumerate(orders)
        ]
        show("", *table(("", "order", "instrument", "side", "price", "leaves", "filled"), rows, left=(3,)))
    return 0


def unchecked_state(file: BinaryIO) -> bytes:
    """Return the state in a damaged snapshot file, its checksums passed over."""
    size = os.fstat(file.fileno()).st_size - TRAILER_SIZE
    blocks = []
    file.seek(SNAPSHOT_FILE.size)
    while (left := size - file.tell()) > CRC_SIZE:
        blocks.append(file.read(min(left, BLOCK_SIZE + CRC_SIZE))[:-CRC_SIZE])
    return b"".join(blocks)
