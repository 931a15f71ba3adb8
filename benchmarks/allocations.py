"""How often the fast engine calls the allocator: counted below Python, by a library loaded before libc.

    PYTHONPATH=build/compiled python benchmarks/allocations.py

Compiles a small library that counts malloc, calloc and realloc, starts itself again with it in LD_PRELOAD and with
PYTHONMALLOC=malloc (so that Python's own pools hide nothing), and applies a million mixed commands in batches.  What is
left is what a call of `apply` makes: a few objects a batch, none a command.
"""

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


def start_again() -> int:
    """Compile the counting library and run this file under it."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "counting.so"
        command = ["gcc", "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
        subprocess.run(command, input=SOURCE, text=True, check=True)
        environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc", "FERROX_COUNTING": "1"}
        return subprocess.run([sys.executable, __file__], env=environment, check=False).returncode


def count() -> int:
    """Print how many calls the allocator saw, by size of batch."""
    from ferrox.fast import COMPILED, FastEngine
    from ferrox.messages import RECORD_SIZE
    from ferrox.testing.workload import Workload, applier

    if not COMPILED:
        print("the fast engine is not compiled here", file=sys.stderr)
        return 2
    allocations = ctypes.CDLL(None).allocations
    allocations.restype = ctypes.c_long
    flow = Workload(3, COMMANDS)
    capacity = flow.capacity()
    source = FastEngine(capacity.orders, capacity.instruments)
    records = b"".join(chunk.tobytes() for chunk in flow.chunks(applier(source)))
    print(f"{'batch':>8}{'batches':>10}{'commands':>12}{'allocations':>13}{'a batch':>10}{'a command':>12}")
    for size in (256, 4096, 65_536):
        batches = [records[start : start + size * RECORD_SIZE] for start in range(0, len(records), size * RECORD_SIZE)]
        engine = FastEngine(capacity.orders, capacity.instruments)
        engine.apply(batches[0])
        before = allocations()
        for batch in batches[1:]:
            engine.apply(batch)
        calls = allocations() - before
        commands = COMMANDS - size
        print(
            f"{size:>8}{len(batches) - 1:>10}{commands:>12,}{calls:>13,}"
            f"{calls / (len(batches) - 1):>10.2f}{calls / commands:>12.6f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(count() if "FERROX_COUNTING" in os.environ else start_again())
