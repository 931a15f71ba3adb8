"""How quick the oracle is: commands a second of the reference engine, in process, batch after batch.

    python benchmarks/reference.py [--engine reference] [--rounds 5] [--batch 1024] [--json FILE] [--bar 200000]

The workload is the five flows of the consensus that lie next to the checkout, about 200,000 commands each; where they
are absent, the presets of `ferrox.testing.workload`.  Only `apply` is timed: records ready in memory, reports left in
the engine's buffer.  A round is a fresh engine.  The table shows the best round and the middle one, by wall clock, and
the middle one by CPU time, which says more where a machine is shared.  With `--bar`, the exit status is 1 when the best
round of any flow is below it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ferrox.engine import ENGINES, Capacity, make_engine
from ferrox.messages import RECORD_SIZE
from ferrox.testing.workload import Workload

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "system"))  # the driver of external flows

from external_flows import (  # type: ignore[import-not-found]
    PROJECT,
    Driver,
    drive_messages,
    expectations,
    read_messages,
)

PRESETS: Final = {"default": 200_000, "calm": 200_000, "sweep": 200_000, "many": 200_000, "deep": 500_000}
CAPACITY: Final = Capacity()


def flows() -> Iterator[tuple[str, bytes]]:
    """Give name and records of each flow."""
    expected = expectations()
    for flow in expected:
        driver = Driver(make_engine("reference", CAPACITY))
        for _ in drive_messages(read_messages(flow["file"]), driver):
            pass
        yield flow["scenario"], bytes(driver.taken)
    if not expected:
        for preset, count in PRESETS.items():
            yield preset, np.concatenate(list(Workload(1, count, preset))).tobytes()


def measure(engine_name: str, records: bytes, rounds: int, batch: int) -> dict[str, float]:
    """Return commands a second over some rounds."""
    batches = [records[start : start + batch * RECORD_SIZE] for start in range(0, len(records), batch * RECORD_SIZE)]
    wall, cpu = [], []
    for _ in range(rounds):
        engine = make_engine(engine_name, CAPACITY)
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        for some in batches:
            taken, _ = engine.apply(some)
            while taken * RECORD_SIZE < len(some):  # an engine may stop early; the rest goes in again
                some = some[taken * RECORD_SIZE :]  # noqa: PLW2901
                taken, _ = engine.apply(some)
        wall.append(time.perf_counter() - wall_start)
        cpu.append(time.process_time() - cpu_start)
    count = len(records) // RECORD_SIZE
    return {
        "commands": count,
        "best": count / min(wall),
        "middle": count / statistics.median(wall),
        "middle_cpu": count / statistics.median(cpu),
    }


def surroundings(engine: str, rounds: int, batch: int) -> dict[str, Any]:
    """Return all that a figure needs to be worth anything."""
    commit = subprocess.run(
        ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if "model name" in line), processor)
    return {
        "commit": commit.stdout.strip() or "none",
        "machine": f"{os.cpu_count()} x {processor}, {platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, numpy {np.__version__}",
        "command": "python " + " ".join(["benchmarks/reference.py", *sys.argv[1:]]),
        "engine": engine,
        "rounds": rounds,
        "batch": batch,
    }


def main() -> int:
    """Measure every flow, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description="Commands a second of the reference engine.")
    parser.add_argument("--engine", choices=ENGINES, default="reference")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1024, help="records in one apply")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--bar", type=float, default=0, help="commands a second that every flow has to reach")
    options = parser.parse_args()

    around = surroundings(options.engine, options.rounds, options.batch)
    for name in ("commit", "machine", "python", "command"):
        print(f"{name:8} {around[name]}")
    print(f"\n{'flow':12} {'commands':>9} {'best /s':>10} {'middle /s':>10} {'by CPU /s':>10}")
    figures = {}
    for name, records in flows():
        figures[name] = row = measure(options.engine, records, options.rounds, options.batch)
        print(
            f"{name:12} {row['commands']:9,.0f} {row['best']:10,.0f} {row['middle']:10,.0f} {row['middle_cpu']:10,.0f}"
        )
    if options.json:
        options.json.write_text(json.dumps({**around, "flows": figures}, indent=1) + "\n", "utf-8")
    below = [name for name, row in figures.items() if row["best"] < options.bar]
    if below:
        print(f"\nbelow {options.bar:,.0f} /s: {', '.join(below)}")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
