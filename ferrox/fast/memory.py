"""Columns that are made once: zeros, and where in them a cache line begins."""

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64


def zeros(count: i64) -> vec[i64]:
    """Return a column of zeros."""
    return vec[i64](memoryview(bytes(int(count) * 8)).cast("q"))


def aligned_at(column: vec[i64]) -> i64:
    """Return the first index, 0 .. 7, whose item begins a cache line of 64 bytes; a column never moves."""
    address = int(np.frombuffer(memoryview(column), dtype=np.int64).__array_interface__["data"][0])
    return -address % 64 // 8
