"""The plain integers of the fast engine are the enumerations and limits of `ferrox.terms`."""

import numpy as np
import pytest

from ferrox import terms
from ferrox.fast import FastEngine, layout
from ferrox.fast.columns import aligned_at

OTHER_NAMES = {terms.Reason.MASS_CANCEL: "MASS_CANCEL_REASON", terms.Reason.NONE: "ALLOW"}


@pytest.mark.parametrize(
    "words",
    [
        terms.CommandKind,
        terms.Side,
        terms.TimeInForce,
        terms.OrderFlag,
        terms.SelfTrade,
        terms.ReportKind,
        terms.Reason,
    ],
)
def test_every_word_has_the_same_number_in_the_fast_engine(words):
    for word in words:
        name = OTHER_NAMES.get(word, word.name) if words is terms.Reason else word.name

        assert getattr(layout, name) == word, name


def test_scopes_limits_states_flags_and_ranges_have_the_same_numbers_in_the_fast_engine():
    for scope in terms.Scope:
        assert getattr(layout, f"SCOPE_{scope.name}") == scope
    for limit in terms.Limit:
        assert getattr(layout, f"LIMIT_{limit.name}") == limit
    assert (layout.PRE_OPEN, layout.OPEN, layout.CLOSED) == (1, 2, max(terms.TradingState))
    assert (layout.AGGRESSOR, layout.PRIORITY_KEPT, layout.SLID) == (1, 2, 4)
    assert layout.UNKNOWN_FLAGS == 0xFF ^ terms.ORDER_FLAGS ^ terms.SELF_TRADE_MASK
    assert layout.MODE_SHIFT == terms.SELF_TRADE_SHIFT
    assert layout.MARK == int(terms.Annotation.MARK)
    for name in (
        "PRICE_MAX",
        "QUANTITY_MAX",
        "ACCOUNT_SHIFT",
        "ACCOUNT_MAX",
        "INSTRUMENT_MAX",
        "RULES_VERSION",
        "SEQUENCE_MAX",
        "TIME_MAX",
    ):
        assert getattr(layout, name) == getattr(terms, name)


def test_a_tick_number_is_never_negative_and_a_key_never_leaves_64_bits():
    assert layout.TICK_NUMBER_ZERO - terms.PRICE_MAX >= 0
    assert layout.TICK_NUMBER_ZERO + terms.PRICE_MAX < 1 << layout.TICK_NUMBER_BITS
    assert layout.TICK_NUMBER_BITS - layout.BLOCK_SHIFT == layout.BLOCK_NUMBER_BITS
    assert (2 * terms.INSTRUMENT_MAX + 1) << layout.TICK_NUMBER_BITS < 1 << 62


def test_places_of_the_largest_engine_fit_in_31_bits():
    slots = 3 * terms.ORDER_CAPACITY_MAX + layout.BOOK_SLOTS * terms.INSTRUMENT_CAPACITY_MAX + 1

    assert layout.CONTROL + slots * layout.SLOT < 2**31


def test_slots_begin_on_a_cache_line():
    engine = FastEngine(1000, 10)
    start = np.frombuffer(memoryview(engine.slots), dtype=np.int64).__array_interface__["data"][0]

    first = engine.slots[layout.ORDERS + layout.FRESH]

    assert (start + 8 * first) % 64 == 0
    assert first == layout.CONTROL + aligned_at(engine.slots)
