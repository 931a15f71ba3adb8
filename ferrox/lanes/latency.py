"""Latencies: how many commands took how long, counted in a column that one process adds to and others have copies of.

Two stages, both from the moment in which the gateway has read a command from its socket, which is the time of its
record: `match` to its reports standing on the tape, so that they may leave, and `answer` to the gateway routing them
to the client.  A bucket is an eighth of a power of two nanoseconds wide, so a percentile is right to 12.5 %.
"""

from typing import Final

from librt.strings import read_i64_le
from librt.vecs import vec
from mypy_extensions import i64

STAGES: Final = ("match", "answer")
MATCH: Final = 0
ANSWER: Final = 1
BUCKETS: Final = 352
LONGEST_NS: Final = (1 << 43) - 1
"""Two hours and a half; what took longer is counted as that."""
SUM: Final = 352  # nanoseconds, of all
WORDS: Final = 384
"""Of a stage: the buckets, the sum, and zeros."""
RECORD_SIZE: Final = 64
TIME_AT: Final = 16


def note(column: vec[i64], nanoseconds: i64) -> None:
    """Count a latency; one below zero, of a clock that was set back, counts as zero."""
    if nanoseconds < 0:
        nanoseconds = 0
    if nanoseconds > LONGEST_NS:
        nanoseconds = LONGEST_NS
    column[SUM] += nanoseconds
    place: i64 = 0
    while nanoseconds >= 16:
        nanoseconds >>= 1
        place += 8
    column[place + nanoseconds] += 1


def note_records(column: vec[i64], records: bytes, now_ns: i64) -> None:
    """Count what whole records have taken by now."""
    size: i64 = len(records)
    at: i64 = 0
    while at < size:
        note(column, now_ns - read_i64_le(records, at + TIME_AT))
        at += RECORD_SIZE
