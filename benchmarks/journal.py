"""How quick the journal is: appending by durability level, sustained rates, recovery; beside SQLite and a plain file.

    PYTHONPATH=build/compiled python benchmarks/journal.py [--seconds 3] [--records 10000000] [--json FILE] [PART ...]

The parts are `latency`, `rates` and `recovery`; without names all are run.  Files go to a temporary directory on the
disk that `--directory` names (default: here), because what is measured there is that disk.

latency   Open loop at 1,000,000 records a second: each record has a time at which it is due, whatever was due since the
          last look is appended as one batch, and a record's latency counts from when it was due, so that no stall is
          left out; with a syncer, until its acknowledgement by the level, too.  The machine's own hiccups are the gaps
          of an empty loop in the same run.  The service time of a call is given raw, and without as many of its slowest
          calls as hiccups of more than 10 us would have hit in the time that was spent in calls.
rates     As fast as it goes, by level and by records per append.  SQLite (WAL mode, one insert a record, one
          transaction a group) and a plain buffered file that is flushed once a group stand beside: neither has a
          chain, a watermark, or a verdict about a torn tail.
recovery  A journal of a simulated flow: verified alone, replayed from its first record, and from a snapshot 100,000
          records before its end, until an engine is ready to go on.
"""

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from reference import surroundings  # type: ignore[import-not-found]

import ferrox as fx
from ferrox.engine import Capacity, make_engine
from ferrox.journal import Durability, Journal, command_records, read, scan
from ferrox.messages import RECORD_SIZE, NewOrder
from ferrox.snapshot import write_snapshot
from ferrox.terms import Side, TimeInForce
from ferrox.testing.workload import Workload, applier

RATE: Final = 1_000_000
BATCH_MAX: Final = 1024
HICCUP_NS: Final = 10_000
GROUPS: Final = (1, 64, 1024)
CAPACITY: Final = Capacity()
PERCENTILES: Final = (50, 99, 99.9, 99.99, 100)
Writer = tuple[Callable[[bytes], object], Callable[[], None]]
"""What appends a group of records, and what returns when the last is acknowledged."""
SQLITE_LEVELS: Final = {"D0": "OFF", "D1": "FULL"}


def make_records(count: int) -> bytes:
    """Return records to append, all alike but for their ids."""
    frames = [NewOrder(Side.BUY, TimeInForce.GTC, 0, 1, 1 + n, 100, 5).pack() for n in range(count)]
    return command_records(frames, time_ns=1)


# --------------------------------------------------------------------------------------------------------- latency


def offer(seconds: float, append: Callable[[int], None], released: Callable[[], int]) -> dict[str, NDArray[np.int64]]:
    """Offer records at the rate; return the latencies in ns of appends and acknowledgements, and the service times."""
    total = int(seconds * RATE)
    appended_at = np.zeros(total, np.int64)
    acknowledged_at = np.zeros(total, np.int64)
    service: list[int] = []
    clock = time.perf_counter_ns
    sent = acknowledged = 0
    period = 1_000_000_000 // RATE
    first = released()
    start = clock()
    while acknowledged < total:
        now = clock()
        due = min((now - start) // period, total)
        if due > sent:
            count = min(due - sent, BATCH_MAX)
            append(count)
            end = clock()
            appended_at[sent : sent + count] = end - start
            service.append(end - now)
            sent += count
        known = min(released() - first, sent)
        if known > acknowledged:
            acknowledged_at[acknowledged:known] = clock() - start
            acknowledged = known
    due_at = np.arange(1, total + 1) * period
    return {
        "append": appended_at - due_at,
        "acknowledged": acknowledged_at - due_at,
        "service": np.array(service, np.int64),
    }


def percentiles(values: NDArray[np.int64]) -> dict[str, float]:
    """Return the percentiles in microseconds."""
    return {f"p{p:g}": round(float(np.percentile(values, p)) / 1000, 2) for p in PERCENTILES}


def without_hiccups(service: NDArray[np.int64], hiccups_per_second: float) -> tuple[NDArray[np.int64], float]:
    """Return service times without the slowest that the machine alone would explain, and their share."""
    expected = min(round(hiccups_per_second * float(service.sum()) / 1e9), int((service > HICCUP_NS).sum()))
    kept = np.sort(service)[: len(service) - expected]
    return kept, expected / len(service)


def hiccups(seconds: float) -> NDArray[np.int64]:
    """Return every gap between two looks at the clock of an empty loop, in ns."""
    clock = time.perf_counter_ns
    gaps = []
    last = clock()
    end = last + int(seconds * 1e9)
    while last < end:
        now = clock()
        if now - last > HICCUP_NS:
            gaps.append(now - last)
        last = now
    return np.array(gaps, np.int64)


def measure_latency(place: Path, seconds: float) -> dict[str, Any]:
    """Print and return latencies by level."""
    records = make_records(BATCH_MAX)
    parts = [records[: n * RECORD_SIZE] for n in range(BATCH_MAX + 1)]
    gaps = hiccups(seconds)
    often = len(gaps) / seconds
    results: dict[str, Any] = {"hiccups_per_second": often, "hiccups_share": float(gaps.sum()) / seconds / 1e9}
    print(f"\nlatency in us at {RATE:,} records a second for {seconds:g} s")
    print(f"the machine alone: {often:,.0f} gaps a second over 10 us, {results['hiccups_share']:.2%} of the time")
    print(f"{'':<40}" + "".join(f"{f'P{p:g}':>10}" for p in PERCENTILES[:-1]) + f"{'max':>10}")
    for level in Durability:
        for backend, syncer in (("mmap", False), ("pwrite", False), ("mmap", True), ("pwrite", True)):
            if level and not syncer:
                continue  # every append would wait for the disk: see the rates
            path = place / "latency"
            with Journal.create(path, CAPACITY, durability=level, backend=backend, syncer=syncer) as journal:
                append, released = journal.append, partial(getattr, journal, "released")
                found = offer(seconds, lambda count, append=append: append(parts[count]), released)  # type: ignore[misc]
                journal.sync()
            shutil.rmtree(path)
            name = f"{level.name} {backend}{' syncer' if syncer else ''}"
            kept, share = without_hiccups(found["service"], often)
            rows = {"appended": found["append"], "acknowledged": found["acknowledged"]}
            rows |= {"one call": found["service"], f"one call, less {share:.2%}": kept}
            for what, values in rows.items():
                if level or what != "acknowledged":
                    results[f"{name}: {what}"] = percentiles(values)
                    show(f"{name}: {what}", results[f"{name}: {what}"])
    return results


def show(name: str, values: dict[str, float]) -> None:
    """Print a row of percentiles."""
    print(f"{name:<40}" + "".join(f"{value:>10.2f}" for value in values.values()), flush=True)


# ----------------------------------------------------------------------------------------------------------- rates


@contextmanager
def ferrox_writer(path: Path, level: str, backend: str, *, syncer: bool) -> Iterator[Writer]:
    """Give what appends a group to a journal."""
    with Journal.create(path, CAPACITY, durability=Durability[level], backend=backend, syncer=syncer) as journal:
        yield journal.append, journal.wait


@contextmanager
def sqlite_writer(path: Path, level: str) -> Iterator[Writer]:
    """Give what inserts a group of records in one transaction."""
    path.mkdir()
    base = sqlite3.connect(path / "journal.db", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute(f"PRAGMA synchronous={SQLITE_LEVELS[level]}")
    base.execute("CREATE TABLE journal (sequence INTEGER PRIMARY KEY, record BLOB)")

    def append(records: bytes) -> None:
        base.execute("BEGIN")
        rows = ((records[at : at + RECORD_SIZE],) for at in range(0, len(records), RECORD_SIZE))
        base.executemany("INSERT INTO journal (record) VALUES (?)", rows)
        base.execute("COMMIT")

    yield append, lambda: None
    base.close()


@contextmanager
def file_writer(path: Path, level: str) -> Iterator[Writer]:
    """Give what writes a group to a plain file, with nothing that could tell damage."""
    with path.open("wb") as file:

        def append(records: bytes) -> None:
            file.write(records)
            file.flush()
            if level != "D0":
                os.fdatasync(file.fileno())

        yield append, lambda: None


def measure_rates(place: Path, seconds: float) -> dict[str, Any]:
    """Print and return records a second, by writer, level and group."""
    writers: dict[str, Callable[[Path], Any]] = {}
    for level in ("D0", "D1", "D2"):
        for backend in ("mmap", "pwrite"):
            writers[f"{level} ferrox {backend}"] = partial(ferrox_writer, level=level, backend=backend, syncer=False)
        writers[f"{level} ferrox mmap syncer"] = partial(ferrox_writer, level=level, backend="mmap", syncer=True)
        if level in SQLITE_LEVELS:
            writers[f"{level} SQLite WAL"] = partial(sqlite_writer, level=level)
            writers[f"{level} buffered file"] = partial(file_writer, level=level)
    print("\nrecords a second, sustained, until the last is acknowledged (and ns a record)")
    print(f"{'records per append':<26}" + "".join(f"{group:>22}" for group in GROUPS))
    results: dict[str, Any] = {}
    for name, writer in writers.items():
        row = {group: run_writer(writer, place / "rates", group, seconds) for group in GROUPS}
        results[name] = row
        print(f"{name:<26}" + "".join(f"{rate:>12,.0f} {1e9 / rate:>9,.0f}" for rate in row.values()), flush=True)
    return results


def run_writer(writer: Callable[[Path], Any], path: Path, group: int, seconds: float) -> float:
    """Return records a second of a writer, the middle one of three runs."""
    records = make_records(group)
    rates = []
    for _ in range(3):
        count = 0
        with writer(path) as (append, wait):
            start = time.perf_counter()
            while time.perf_counter() - start < seconds / 3:
                for _ in range(max(1, 256 // group)):
                    append(records)
                    count += group
                if count > 12_000_000:
                    break
            wait()
            rates.append(count / (time.perf_counter() - start))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return statistics.median(rates)


# -------------------------------------------------------------------------------------------------------- recovery


def measure_recovery(place: Path, number: int) -> dict[str, Any]:
    """Print and return how long it takes until an engine is ready."""
    path = place / "recovery"
    workload = Workload(1, number)
    engine = make_engine("fast", workload.capacity())
    apply = applier(engine)
    with Journal.create(path, workload.capacity()) as journal:
        snapshot_due = number - 100_000
        for chunk in workload.chunks(lambda records: apply(journal.append(records))):
            if journal.sequence >= snapshot_due > 0:
                journal.sync()
                write_snapshot(path, engine.snapshot(), journal.uuid)
                snapshot_due = 0
            del chunk
    orders = int.from_bytes(engine.snapshot()[44:48], "little")
    results: dict[str, Any] = {"records": number, "resting_orders": orders}
    print(f"\nrecovery of a journal of {number:,} records, {orders:,} resting orders; seconds")

    def verified() -> None:
        scan(path)

    def replayed() -> None:
        fresh = make_engine("fast", workload.capacity())
        for records in read(path):
            fresh.apply(records)

    def opened(*, snapshots: bool) -> None:
        venue = fx.Venue.load(path, "fast", snapshots=snapshots)
        venue.close()

    for name, work in (
        ("every byte verified", verified),
        ("verified and replayed from record 1", replayed),
        ("ready to go on, from record 1", lambda: opened(snapshots=False)),
        ("ready to go on, from the snapshot", lambda: opened(snapshots=True)),
    ):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        results[name] = statistics.median(times)
        print(f"{name:<38}{results[name]:>8.2f}   {number / results[name]:>12,.0f} records/s", flush=True)
    return results


def main() -> int:
    """Measure what is asked for, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="latency, rates, recovery")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--records", type=int, default=10_000_000, help="of the journal that is recovered")
    parser.add_argument("--directory", type=Path, default=Path(), help="where the files go")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    results: dict[str, Any] = surroundings("fast", 3, 1)
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="journal-benchmark-") as name:
        place = Path(name)
        wanted = options.parts or ["latency", "rates", "recovery"]
        if "latency" in wanted:
            results["latency"] = measure_latency(place, options.seconds)
        if "rates" in wanted:
            results["rates"] = measure_rates(place, options.seconds)
        if "recovery" in wanted:
            results["recovery"] = measure_recovery(place, options.records)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
