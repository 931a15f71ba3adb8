"""How quick the fast engine is: ns a message by flow and batch size, beside a C++ yardstick and the reference engine.

    python benchmarks/engine.py [--rounds 5] [--batch 1 16 256 4096] [--flow NAME ...] [--json FILE]

The flows are the plain ones of `flows.py` (limit orders and cancels) and, where they lie next to the checkout, the five
of the consensus (with IOC and replaces).  The yardstick (`yardstick/yardstick.cpp`) is compiled here with g++ -O3
-march=native and runs the same records; it checks no field and knows no rules.  Everything is measured in rounds, each
engine once a round, by CPU time of one pinned process; the table shows the middle of the rounds and, for the largest
batch, the middle of the ratios within the rounds, because a shared machine changes its pace from minute to minute.
Durability: none; only `apply` is timed, with records ready in memory and reports left in the engine's buffer.  Trades
and orders left are compared with the yardstick's before anything is printed.  Without `--flow`, packages from PyPI that
are installed follow (`peers.py`).

Run it with the compiled copy first: PYTHONPATH=build/compiled python benchmarks/engine.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import peers  # type: ignore[import-not-found]
from flows import GROWING, PLAIN, Flow, plain_flow, write  # type: ignore[import-not-found]
from reference import flows as consensus_flows  # type: ignore[import-not-found]
from reference import surroundings

from ferrox.engine import Capacity, Engine, make_engine
from ferrox.fast import COMPILED
from ferrox.messages import RECORD_DTYPE, RECORD_SIZE, REPORT_DTYPE
from ferrox.state import SNAPSHOT_HEADER_DTYPE
from ferrox.terms import ReportKind

HERE: Final = Path(__file__).parent
CAPACITY: Final = Capacity()
REFERENCE_MESSAGES: Final = 200_000


class Outcome(NamedTuple):
    """What two engines must agree on."""

    trades: int
    resting: int


def all_flows(names: list[str], messages: int) -> list[Flow]:
    """Return the plain flows, and those of the consensus where they are."""
    found = [plain_flow(name, messages) for name in PLAIN + GROWING if not names or name in names]
    for name, records in consensus_flows():
        prices = np.frombuffer(records, RECORD_DTYPE)["command"]["price"][1:]
        if name in PLAIN or (names and name not in names) or not prices.any():
            continue
        found.append(Flow(name, records, 1, 1, int(prices.max()).bit_length()))
    return found


def build_yardstick(folder: Path) -> Path:
    """Compile the yardstick and return the program."""
    program = folder / "yardstick"
    source = HERE / "yardstick" / "yardstick.cpp"
    subprocess.run(["g++", "-O3", "-march=native", "-std=c++17", "-o", program, source], check=True)
    return program


def run_yardstick(program: Path, flow: Flow, path: Path) -> tuple[float, Outcome]:
    """Return ns a message and the outcome of one run."""
    words = [program, path, flow.prefill, flow.instruments, flow.ladder_bits, 0, 1]
    line = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout
    messages, nanoseconds, trades, resting = line.split()
    return int(nanoseconds) / int(messages), Outcome(int(trades), int(resting))


def feed(engine: Engine, records: bytes, batch: int) -> None:
    """Apply records in batches, whatever the engine takes at a time."""
    for start in range(0, len(records), batch * RECORD_SIZE):
        left = records[start : start + batch * RECORD_SIZE]
        while left:
            taken, _ = engine.apply(left)
            left = left[taken * RECORD_SIZE :]


def run_engine(name: str, flow: Flow, batch: int, limit: int | None = None) -> float:
    """Return ns a message of one run: CPU time of `apply` over batches that are cut beforehand."""
    engine = make_engine(name, CAPACITY)
    start = flow.prefill * RECORD_SIZE
    feed(engine, flow.records[:start], 4096)
    end = len(flow.records) if limit is None else min(len(flow.records), start + limit * RECORD_SIZE)
    cut = range(start, end, batch * RECORD_SIZE)
    batches = [flow.records[place : min(end, place + batch * RECORD_SIZE)] for place in cut]
    apply = engine.apply
    begin = time.process_time_ns()
    for records in batches:
        if apply(records)[0] * RECORD_SIZE != len(records):
            raise SystemExit(f"{flow.name}: a batch of {batch} did not fit the report buffer; take a smaller one")
    elapsed = time.process_time_ns() - begin
    return float(elapsed / ((end - start) // RECORD_SIZE))


def outcome(name: str, flow: Flow) -> Outcome:
    """Return what an engine makes of a flow, untimed."""
    engine = make_engine(name, CAPACITY)
    trades = 0
    for start in range(0, len(flow.records), 4096 * RECORD_SIZE):
        _, reports = engine.apply(flow.records[start : start + 4096 * RECORD_SIZE])
        trades += int((np.frombuffer(reports, REPORT_DTYPE)["kind"] == ReportKind.TRADE).sum())
    return Outcome(trades, int(np.frombuffer(engine.snapshot()[:64], SNAPSHOT_HEADER_DTYPE)["orders"][0]))


def measure(flow: Flow, program: Path, folder: Path, batches: list[int], rounds: int) -> dict[str, Any]:
    """Return the middle of all rounds, by engine and batch, after both made the same of the flow."""
    path = write(flow, folder)
    _, expected = run_yardstick(program, flow, path)
    got = outcome("fast", flow)
    if got != expected:
        raise SystemExit(f"{flow.name}: the fast engine ends with {got}, the yardstick with {expected}")
    yardstick: list[float] = []
    reference: list[float] = []
    fast: dict[int, list[float]] = {batch: [] for batch in batches}
    for _ in range(rounds):
        yardstick.append(run_yardstick(program, flow, path)[0])
        for batch in batches:
            fast[batch].append(run_engine("fast", flow, batch, None if batch > 1 else REFERENCE_MESSAGES))
        if len(reference) < 2 and flow.prefill < REFERENCE_MESSAGES:
            reference.append(run_engine("reference", flow, 4096, REFERENCE_MESSAGES))
    path.unlink()
    ratios = [ns / bound for ns, bound in zip(fast[max(batches)], yardstick, strict=True)]
    return {
        "flow": flow.name,
        "messages": flow.messages,
        "yardstick_ns": statistics.median(yardstick),
        "fast_ns": {batch: statistics.median(fast[batch]) for batch in batches},
        "ratio": statistics.median(ratios),
        "reference_ns": statistics.median(reference) if reference else None,
    }


def main() -> int:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 256, 4096])
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--flow", nargs="+", default=[], help="only these flows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not COMPILED:
        print("the fast engine is not compiled here; its figures would be of the interpreter", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    facts = surroundings("fast", options.rounds, max(options.batch))
    for name in ("commit", "machine", "python"):
        print(f"{name:<9}{facts[name]}")
    print(f"command  python benchmarks/engine.py, {options.rounds} rounds; ns a message by CPU time; durability none\n")
    titles = [f"batch {batch}" for batch in options.batch]
    print(f"{'flow':<12}{'yardstick':>10}" + "".join(f"{title:>12}" for title in titles), end="")
    print(f"{'ratio':>8}{'M/s':>8}{'reference':>11}", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build_yardstick(folder)
        for flow in all_flows(options.flow, options.messages):
            row = measure(flow, program, folder, options.batch, options.rounds)
            rows.append(row)
            best = row["fast_ns"][max(options.batch)]
            shown = "".join(f"{row['fast_ns'][batch]:>12.1f}" for batch in options.batch)
            slow = f"{row['reference_ns']:>11.0f}" if row["reference_ns"] else f"{'-':>11}"
            print(
                f"{flow.name:<12}{row['yardstick_ns']:>10.1f}{shown}{row['ratio']:>8.2f}{1e3 / best:>8.2f}{slow}",
                flush=True,
            )
    packages = {} if options.flow else peers.measure(options.rounds, peers.MESSAGES)
    if options.json:
        options.json.write_text(json.dumps({**facts, "rows": rows, "packages": packages}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
