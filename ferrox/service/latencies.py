"""What the service knows of latencies: what its processes have counted (`ferrox.lanes.latency`), for whoever looks."""

from collections.abc import Sequence
from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from ferrox.lanes.latency import BUCKETS, STAGES, SUM, WORDS
from ferrox.shared import Shared

PERCENTILES: Final = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p99_9_us": 0.999}
BOUNDS: Final = range(12, 35)
"""Of the buckets for Prometheus: 2^12 nanoseconds, 4 us, to 2^34, 17 s."""


def make_latencies() -> Shared:
    """Return shared memory for the counts of all stages."""
    return Shared.create("latencies", len(STAGES) * WORDS * 8)


class Latencies:
    """The counts of all stages."""

    def __init__(self, shared: Shared) -> None:
        """Look at what was made with `make_latencies`."""
        self.words = shared.bytes.cast("q")

    def tell(self, stage: int, column: vec[i64]) -> None:
        """Say what a process has counted since it started."""
        self.words[stage * WORDS : (stage + 1) * WORDS] = memoryview(column)

    def counts(self) -> dict[str, list[int]]:
        """Return the count of each bucket, by stage."""
        words = self.words
        return {name: words[at * WORDS : at * WORDS + BUCKETS].tolist() for at, name in enumerate(STAGES)}

    def sum_ns(self, stage: str) -> int:
        """Return the sum of all latencies of a stage."""
        total: int = self.words[STAGES.index(stage) * WORDS + SUM]
        return total


def highest_ns(bucket: int) -> int:
    """Return the longest latency that a bucket counts."""
    shift = max(0, bucket // 8 - 1)
    return ((bucket - 8 * shift + 1) << shift) - 1


def summary(counts: Sequence[int]) -> dict[str, float]:
    """Return how many there were, and percentiles and the longest in microseconds, each the upper end of its bucket."""
    total = sum(counts)
    found: dict[str, float] = {"count": total}
    for name, share in {**PERCENTILES, "max_us": 1.0}.items():
        left = max(1, -int(-total * share // 1))
        place = 0
        for bucket, count in enumerate(counts):
            left -= count
            if count and left <= 0:
                place = bucket
                break
        found[name] = round(highest_ns(place) / 1000, 1) if total else 0.0
    return found


def since(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Return what was counted between two looks; of a process that began again meanwhile, what it has counted since."""
    if any(now < then for then, now in zip(before, after, strict=True)):
        return list(after)
    return [now - then for then, now in zip(before, after, strict=True)]


def cumulative(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return the buckets of a Prometheus histogram: upper bounds in seconds, and how many were not above each."""
    found = [(f"{2**bound / 1e9:.9f}", float(sum(counts[: (bound - 2) * 8]))) for bound in BOUNDS]
    return [*found, ("+Inf", float(sum(counts)))]
