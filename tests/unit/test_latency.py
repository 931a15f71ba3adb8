"""Latencies: counted by the lanes, read by whoever looks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.fast.columns import zeros
from ferrox.lanes.latency import ANSWER, BUCKETS, LONGEST_NS, MATCH, SUM, WORDS, note, note_records
from ferrox.messages import RECORD
from ferrox.service.latencies import Latencies, cumulative, highest_ns, make_latencies, since, summary

NANOSECONDS = st.one_of(st.integers(0, 100), st.integers(0, LONGEST_NS))


def counted(values):
    column = zeros(WORDS)
    for value in values:
        note(column, value)
    return column


@given(NANOSECONDS)
def test_a_latency_is_in_the_one_bucket_that_is_at_most_an_eighth_too_long(value):
    column = counted([value])

    (bucket,) = [place for place in range(BUCKETS) if column[place]]
    below = highest_ns(bucket - 1) if bucket else -1
    assert below < value <= highest_ns(bucket) <= value * 9 / 8
    assert column[SUM] == value


@pytest.mark.parametrize(
    ("value", "taken"), [(-1, 0), (-(2**62), 0), (LONGEST_NS + 1, LONGEST_NS), (2**62, LONGEST_NS)]
)
def test_what_no_clock_says_is_counted_at_the_end_of_the_scale(value, taken):
    assert list(counted([value])) == list(counted([taken]))


@given(st.lists(NANOSECONDS, min_size=1, max_size=50))
def test_percentiles_are_those_of_the_sorted_values(values):
    column = counted(values)
    found = summary(list(column)[:BUCKETS])

    assert found["count"] == len(values)
    for name, share in (("p50_us", 0.5), ("p99_us", 0.99), ("max_us", 1.0)):
        true = sorted(values)[max(1, -int(-len(values) * share // 1)) - 1]
        assert true / 1000 - 0.1 <= found[name] <= true * 9 / 8000 + 0.1


def test_nothing_counted_has_no_percentiles():
    assert set(summary([0] * BUCKETS).values()) == {0}


def test_records_are_counted_from_their_times():
    records = b"".join(RECORD.pack(0, 0, n, 1000 + n, *[0] * 13) for n in range(100))
    column = zeros(WORDS)

    note_records(column, records, 2000)

    assert list(column) == list(counted([1000 - n for n in range(100)]))


@given(st.lists(NANOSECONDS, max_size=30), st.lists(NANOSECONDS, max_size=30))
def test_what_is_between_two_looks_was_counted_between_them(first, second):
    before, after = list(counted(first))[:BUCKETS], list(counted(first + second))[:BUCKETS]

    assert since(before, after) == list(counted(second))[:BUCKETS]


def test_a_process_that_began_again_has_counted_what_it_says():
    before, after = list(counted([5, 5, 7])), list(counted([5, 9]))

    assert since(before, after) == after


def test_each_stage_has_a_place_of_its_own():
    shared = Latencies(make_latencies())
    shared.tell(MATCH, counted([1000]))
    shared.tell(ANSWER, counted([2000, 3000]))

    assert {stage: sum(counts) for stage, counts in shared.counts().items()} == {"match": 1, "answer": 2}
    assert (shared.sum_ns("match"), shared.sum_ns("answer")) == (1000, 5000)


@given(st.lists(NANOSECONDS, max_size=30))
def test_the_buckets_for_prometheus_count_all_that_is_not_above_their_bound(values):
    found = cumulative(list(counted(values))[:BUCKETS])

    for bound, count in found[:-1]:
        assert count == sum(value < round(float(bound) * 1e9) for value in values)
    assert found[-1] == ("+Inf", len(values))
