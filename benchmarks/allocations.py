"""How often the fast engine calls the allocator: counted below Python, by a library loaded before libc.

    PYTHONPATH=build/compiled python benchmarks/allocations.py [--most 12]

Compiles a small library that counts malloc, calloc and realloc, starts itself again with it in LD_PRELOAD and with
PYTHONMALLOC=malloc (so that Python's own pools hide nothing), and applies two flows in batches: a million mixed
commands of every kind, and a book deep enough to be looked ahead in.  What is left is what a call of `apply` makes: a
few objects a batch, none a command.  Exit status 1 when a batch of any size takes more than `--most`.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

SOURCE: Final = r"""
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static long calls;
long allocations(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
static void count(void) { __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED); }
void *malloc(size_t size) { count(); return __libc_malloc(size); }
void *calloc(size_t items, size_t size) { count(); return __libc_calloc(items, size); }
void *realloc(void *old, size_t size) { count(); return __libc_realloc(old, size); }
"""
COMMANDS: Final = 1_000_000
DEEP_COMMANDS: Final = 300_000


def start_again() -> int:
    """Compile the counting library and run this file under it."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "counting.so"
        command = ["gcc", "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
        subprocess.run(command, input=SOURCE, text=True, check=True)
        environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc", "FERROX_COUNTING": "1"}
        return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode


def mixed() -> tuple[bytes, int]:
    """Return records of every kind of command, and how many come before the count begins."""
    from ferrox.fast import FastEngine
    from ferrox.testing.workload import Workload, applier

    flow = Workload(3, COMMANDS)
    capacity = flow.capacity()
    source = FastEngine(capacity.orders, capacity.instruments)
    return b"".join(chunk.tobytes() for chunk in flow.chunks(applier(source))), 65_536


def deep() -> tuple[bytes, int]:
    """Return the records of a deep book, and how many come before the count begins."""
    from flows import plain_flow  # type: ignore[import-not-found]

    flow = plain_flow("deep", DEEP_COMMANDS)
    return flow.records, flow.prefill


def count(most: float) -> int:
    """Print how many calls the allocator saw, by flow and by size of batch; return the exit status."""
    from ferrox.fast import COMPILED, FastEngine
    from ferrox.messages import RECORD_SIZE
    from ferrox.terms import INSTRUMENT_CAPACITY, ORDER_CAPACITY

    if not COMPILED:
        print("the fast engine is not compiled here", file=sys.stderr)
        return 2
    allocations = ctypes.CDLL(None).allocations
    allocations.restype = ctypes.c_long
    worst = 0.0
    print(f"{'flow':<8}{'batch':>8}{'batches':>10}{'commands':>12}{'allocations':>13}{'a batch':>10}{'a command':>12}")
    for name, source in (("mixed", mixed), ("deep", deep)):
        records, before = source()
        for size in (256, 4096, 65_536):
            starts = range(before * RECORD_SIZE, len(records), size * RECORD_SIZE)
            batches = [records[start : start + size * RECORD_SIZE] for start in starts]
            engine = FastEngine(ORDER_CAPACITY, INSTRUMENT_CAPACITY)
            for start in range(0, before * RECORD_SIZE, 4096 * RECORD_SIZE):
                engine.apply(records[start : min(before * RECORD_SIZE, start + 4096 * RECORD_SIZE)])
            earlier = allocations()
            for batch in batches:
                engine.apply(batch)
            calls = allocations() - earlier
            commands = len(records) // RECORD_SIZE - before
            worst = max(worst, calls / len(batches))
            print(
                f"{name:<8}{size:>8}{len(batches):>10}{commands:>12,}{calls:>13,}"
                f"{calls / len(batches):>10.2f}{calls / commands:>12.6f}"
            )
    return 1 if worst > most else 0


def main() -> int:
    """Count, under the library that counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=float("inf"), metavar="N", help="allocations a batch may take")
    options = parser.parse_args()
    return count(options.most) if "FERROX_COUNTING" in os.environ else start_again()


if __name__ == "__main__":
    sys.exit(main())
