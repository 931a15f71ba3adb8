"""The fast engine allocates nothing while commands flow (compiled; interpreted, every integer is an object)."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferrox.fast import COMPILED, FastEngine
from ferrox.messages import RECORD_SIZE
from ferrox.testing.workload import Workload, applier

COMMANDS = 1_100_000
BATCH = 4096 * RECORD_SIZE


def resident_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not COMPILED, reason="only the compiled build is free of allocations")
def test_a_million_mixed_commands_leave_no_block_and_no_page_behind():
    flow = Workload(3, COMMANDS)
    capacity = flow.capacity()
    source = FastEngine(capacity.orders, capacity.instruments)
    records = b"".join(chunk.tobytes() for chunk in flow.chunks(applier(source)))
    batches = [records[start : start + BATCH] for start in range(0, len(records), BATCH)]
    engine = FastEngine(capacity.orders, capacity.instruments)
    for batch in batches[:10]:  # whatever is made once is made now
        engine.apply(batch)
    gc.collect()
    gc.disable()
    blocks, pages = sys.getallocatedblocks(), resident_pages()

    for batch in batches[10:]:
        engine.apply(batch)

    grown_blocks, grown_pages = sys.getallocatedblocks() - blocks, resident_pages() - pages
    gc.enable()
    assert len(batches) * 4096 > 1_000_000
    assert grown_blocks < 20  # the loop's own few; a block a batch would be 250, a block a command a million
    assert grown_pages < 64  # 256 KiB
    assert engine.snapshot() == source.snapshot()


@pytest.mark.skipif(not COMPILED, reason="only the compiled build is free of allocations")
def test_a_batch_calls_the_allocator_a_few_times_and_a_command_never():
    """Counted below Python, in a mixed flow and a deep book: what is freed at once is no growth, but is seen here."""
    program = Path(__file__).parents[2] / "benchmarks" / "allocations.py"

    # A script finds its neighbours in its own folder, which PYTHONSAFEPATH would keep from it too.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(program), "--most", "12"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert run.returncode == 0, run.stdout + run.stderr
