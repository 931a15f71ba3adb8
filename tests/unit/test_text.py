"""Commands and reports as lines: each says one thing, and what is no line says why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.errors import UsageError
from ferrox.messages import (
    COMMAND,
    HALF,
    CancelOrder,
    Command,
    DefineInstrument,
    MassCancel,
    NewOrder,
    ReplaceOrder,
    Report,
    SetLimit,
    SetTradingState,
)
from ferrox.terms import Reason, ReportFlag, ReportKind, Scope, Side, compose_order_id
from ferrox.text import (
    REASON_WORDS,
    SELF_TRADES,
    TextError,
    format_command,
    format_order_id,
    format_report,
    is_comment,
    parse_command,
    parse_commands,
)

EXAMPLES: list[tuple[str, Command]] = [
    ("buy #1 10 @ 100", NewOrder(1, 1, 0, 1, 1, 100, 10)),
    ("sell #2 10 @ -5 ioc on 7", NewOrder(2, 2, 0, 7, 2, -5, 10)),
    ("buy #7/9 1 @ 0 post-only", NewOrder(1, 1, 2, 1, compose_order_id(7, 9), 0, 1)),
    ("buy #1 1 @ 0 post-only slide stp=decrement on 2", NewOrder(1, 1, 0x46, 2, 1, 0, 1)),
    ("buy #1 1 @ 0 fok slide stp=cancel-both", NewOrder(1, 3, 0x34, 1, 1, 0, 1)),
    ("sell #1 1 market", NewOrder(2, 2, 1, 1, 1, 0, 1)),
    ("sell #1 1 market fok stp=cancel-taker on 3", NewOrder(2, 3, 0x11, 3, 1, 0, 1)),
    ("sell #1 1 market gtc", NewOrder(2, 1, 1, 1, 1, 0, 1)),
    ("replace sell #1 20 @ 100 post-only slide stp=cancel-maker", ReplaceOrder(2, 1, 0x26, 1, 1, 100, 20)),
    ("replace buy #1 20 @ 100 ioc on 0", ReplaceOrder(1, 2, 0, 0, 1, 100, 20)),
    ("cancel #-5 on 4294967295", CancelOrder(2**32 - 1, -5)),
    ("cancel #8388607/1099511627775", CancelOrder(1, 2**63 - 1)),
    ("mass-cancel on 1", MassCancel(1, 1, 0)),
    ("mass-cancel account 8388608", MassCancel(2, 0, 8388608)),
    ("mass-cancel account 7 on 1", MassCancel(3, 1, 7)),
    ("mass-cancel all", MassCancel(4)),
    (
        "instrument 2 tick 5 lot 10 band -1099511627775 9 pre-open",
        DefineInstrument(1, 2, -(2**40) + 1, 9, 5, 10),
    ),
    ("state 1 halted", SetTradingState(3, 1)),
    ("limit kill 1 account 7", SetLimit(1, 0, 7, 1)),
    ("limit kill 1 on 3", SetLimit(1, 3, 0, 1)),
    ("limit kill 0", SetLimit(1, 0, 0, 0)),
    ("limit max-quantity 500 account 7", SetLimit(2, 0, 7, 500)),
    ("limit max-notional 4611686018427387903", SetLimit(3, 0, 0, 2**62 - 1)),
    ("limit collar 50 on 1", SetLimit(4, 1, 0, 50)),
    ("limit max-open-orders 9", SetLimit(5, 0, 0, 9)),
    ("limit max-exposure -9223372036854775808", SetLimit(6, 0, 0, -(2**63))),
    ("limit order-rate 2 account -1 on 4294967295", SetLimit(7, 2**32 - 1, -1, 2)),
    ("limit cancel-rate 0 account 8388608", SetLimit(8, 0, 2**23, 0)),
]

# What canonical lines leave out may be said as well.
LONGER = [
    ("buy #0/1 10 @ 100 gtc stp=allow on 1", "buy #1 10 @ 100"),
    ("  buy\t#01   10 @ -0  ", "buy #1 10 @ 0"),
    ("sell #1 1 market ioc", "sell #1 1 market"),
    ("cancel #7696581394433 on 1", "cancel #7/1"),
    ("raw 02000000010000000100000000000000", "cancel #1"),
    ("limit kill 1 account 0 on 0", "limit kill 1"),
]

# Frames of which a field has no word, or a place that no line names is set.
UNSAYABLE = [
    NewOrder(3, 1, 0, 1, 1, 100, 10).pack(),
    NewOrder(1, 0, 0, 1, 1, 100, 10).pack(),
    NewOrder(1, 1, 0x08, 1, 1, 100, 10).pack(),
    NewOrder(1, 1, 0x50, 1, 1, 100, 10).pack(),
    NewOrder(1, 1, 0, 1, 1, 100, 10, 1).pack(),
    NewOrder(1, 2, 1, 1, 1, 100, 10).pack(),
    NewOrder(1, 1, 3, 1, 1, 0, 10).pack(),
    ReplaceOrder(1, 1, 1, 1, 1, 0, 10).pack(),
    ReplaceOrder(0, 1, 0, 1, 1, 0, 10).pack(),
    MassCancel(2, 1, 0).pack(),
    MassCancel(1, 1, 7).pack(),
    MassCancel(9).pack(),
    DefineInstrument(0, 1, 0, 1, 1, 1).pack(),
    SetTradingState(5, 1).pack(),
    SetLimit(0, 0, 0, 0).pack(),
    SetLimit(9, 0, 0, 0).pack(),
    COMMAND.pack(7, 1, 0, 0, 0, 0, 1, 0, 1),
    HALF.pack(7, 1, 0, 0, 0, 0),
    HALF.pack(2, 0, 0, 1, 1, 1),
    HALF.pack(6, 1, 0, 0, 1, 1),
    HALF.pack(1, 1, 1, 0, 1, 1),
    COMMAND.pack(2, 0, 0, 0, 1, 1, 0, 0, 0),
    bytes(16),
    bytes(32),
]


@pytest.mark.parametrize(("line", "command"), EXAMPLES)
def test_a_line_says_one_command_and_the_command_that_line(line: str, command: Command):
    """TEXT-1."""
    assert parse_command(line) == command.pack()
    assert format_command(command.pack()) == line


@pytest.mark.parametrize(("line", "canonical"), LONGER)
def test_what_is_left_out_may_be_said(line: str, canonical: str):
    """TEXT-1: it means the same."""
    assert parse_command(line) == parse_command(canonical)
    assert format_command(parse_command(line)) == canonical


@pytest.mark.parametrize("frame", UNSAYABLE)
def test_a_frame_without_words_is_told_as_bytes(frame: bytes):
    """TEXT-1."""
    assert format_command(frame) == f"raw {frame.hex()}"
    assert parse_command(format_command(frame)) == frame
    assert parse_command(f"raw {frame.hex().upper()}") == frame


# Small numbers where words are, any number where numbers are: most of these frames can be said.
bytes_ = st.integers(0, 5) | st.integers(0, 255)
u32 = st.integers(0, 3) | st.integers(0, 2**32 - 1)
i64 = st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)
frames = st.one_of(
    st.tuples(st.sampled_from([1, 3]), bytes_, bytes_, st.sampled_from([0, 1, 2, 6, 0x10, 0x46]), u32, i64, i64, u32)
    .map(lambda fields: COMMAND.pack(*fields, 0)),
    st.tuples(st.just(5), st.integers(0, 5), u32, i64, i64, u32, u32).map(
        lambda fields: COMMAND.pack(*fields[:2], 0, 0, *fields[2:])
    ),
    st.tuples(st.sampled_from([2, 4, 6]), st.integers(0, 5), u32, i64).map(
        lambda fields: HALF.pack(*fields[:2], 0, 0, *fields[2:])
    ),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=32, max_size=32),
)  # fmt: skip


@given(frames)
def test_every_frame_comes_back_from_its_line(frame: bytes):
    """TEXT-1: whatever its bytes."""
    line = format_command(frame)

    assert parse_command(line) == frame
    assert format_command(parse_command(line)) == line


@given(frames, frames)
def test_different_frames_have_different_lines(one: bytes, other: bytes):
    """TEXT-1."""
    assert (format_command(one) == format_command(other)) == (one == other)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31, 33, 48])
def test_only_16_and_32_bytes_are_a_frame(size: int):
    with pytest.raises(ValueError, match=f"this frame has {size}"):
        format_command(bytes(size))


WRONG = [
    ("", None, "buy or sell or cancel or replace or mass-cancel or instrument or state or limit or raw"),
    ("bye #1 10 @ 100", "bye", "buy or sell or cancel"),
    ("Buy #1 10 @ 100", "Buy", "buy or sell"),
    ("buy 1 10 @ 100", "1", "an order id (#ID or #ACCOUNT/REFERENCE)"),
    ("buy # 10 @ 100", "#", "an order id"),
    ("buy #x 10 @ 100", "#x", "an order id"),
    ("buy #7/ 10 @ 100", "#7/", "an order id"),
    ("buy #/7 10 @ 100", "#/7", "an order id"),
    ("buy #1/2/3 10 @ 100", "#1/2/3", "an order id"),
    ("buy #8388608/1 10 @ 100", "#8388608/1", "an order id"),
    ("buy #-1/1 10 @ 100", "#-1/1", "an order id"),
    ("buy #1/1099511627776 10 @ 100", "#1/1099511627776", "an order id"),
    ("buy #9223372036854775808 10 @ 100", "#9223372036854775808", "an order id"),
    ("buy #1", None, "a quantity (0 .. 4294967295)"),
    ("buy #1 ten @ 100", "ten", "a quantity (0 .. 4294967295)"),
    ("buy #1 -1 @ 100", "-1", "a quantity"),
    ("buy #1 4294967296 @ 100", "4294967296", "a quantity"),
    ("buy #1 1_0 @ 100", "1_0", "a quantity"),
    ("buy #1 +1 @ 100", "+1", "a quantity"),
    ("buy #1 \u0661 @ 100", "\u0661", "a quantity"),
    (f"buy #1 {10**300} @ 100", f"{10**300}", "a quantity"),
    ("buy #1 10 100", "100", "market or @"),
    ("replace buy #1 10 market", "market", "@"),
    ("replace #1 10 @ 100", "#1", "buy or sell"),
    ("buy #1 10 @ 9223372036854775808", "9223372036854775808", "a price (-9223372036854775808 .. 9223372036854775807)"),
    ("buy #1 10 @ 1.5", "1.5", "a price"),
    (
        "buy #1 10 @ 100 day",
        "day",
        f"gtc or ioc or fok or post-only or slide or {' or '.join(SELF_TRADES)} or on or the end of the line",
    ),
    ("buy #1 10 @ 100 slide post-only", "post-only", "stp=allow"),
    ("buy #1 10 @ 100 slide stp=none", "stp=none", "stp=allow"),
    ("buy #1 10 market post-only", "post-only", "gtc or ioc or fok or stp=allow"),
    ("buy #1 10 @ 100 on", None, "an instrument (0 .. 4294967295)"),
    ("buy #1 10 @ 100 on -1", "-1", "an instrument"),
    ("buy #1 10 @ 100 on 1 1", "1", "the end of the line"),
    ("cancel #1 at 2", "at", "on or the end of the line"),
    ("mass-cancel", None, "all or account or on"),
    ("mass-cancel all on 1", "on", "the end of the line"),
    ("mass-cancel account x", "x", "an account"),
    ("instrument 1 lot 1", "lot", "tick"),
    ("instrument 1 tick 1 lot 1 band 0 1", None, "pre-open or open or halted or closed"),
    ("state 1 OPEN", "OPEN", "pre-open or open or halted or closed"),
    ("limit", None, "kill or max-quantity or max-notional or collar or max-open-orders or max-exposure or order-rate"),
    ("limit kill", None, "a value (-9223372036854775808 .. 9223372036854775807)"),
    ("limit kill 1 account", None, "an account"),
    ("limit kill 1 on 1 account 7", "account", "the end of the line"),
    ("limit kill 1 all", "all", "account or on or the end of the line"),
    ("raw", None, "a frame of 32 or 64 hexadecimal digits"),
    ("raw 00", "00", "a frame of 32 or 64 hexadecimal digits"),
    ("raw " + "0g" * 16, "0g" * 16, "a frame"),
    ("raw " + "0" * 48, "0" * 48, "a frame"),
    ("# comment", "#", "buy or sell"),
]


@pytest.mark.parametrize(("line", "word", "expected"), WRONG)
def test_a_line_that_is_no_command_names_its_word_and_what_could_stand_there(line, word, expected: str):
    """TEXT-3."""
    with pytest.raises(TextError) as error:
        parse_command(line)

    assert error.value.word == word
    assert error.value.expected.startswith(expected)
    assert error.value.line == line
    assert word is None or line.split()[error.value.index] == word
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_the_error_reads_as_a_sentence():
    """TEXT-3."""
    with pytest.raises(UsageError) as error:
        parse_command("cancel 1")

    assert str(error.value) == (
        "'1' stands where an order id (#ID or #ACCOUNT/REFERENCE) could, as word 2 of 'cancel 1'"
    )


@given(st.text(max_size=60) | st.lists(st.sampled_from(" ".join(line for line, _ in EXAMPLES).split())).map(" ".join))
def test_any_line_is_a_command_or_an_error(line: str):
    """TEXT-3: and a command is its own line's frame."""
    try:
        frame = parse_command(line)
    except TextError:
        return

    assert parse_command(format_command(frame)) == frame


def test_comments_and_empty_lines_are_passed_over():
    lines = ["# a comment", "", "   ", "#", "cancel #1", "  # another"]

    assert list(parse_commands(lines)) == [CancelOrder(1, 1).pack()]
    assert [is_comment(line) for line in lines] == [True, True, True, True, False, True]


@pytest.mark.parametrize(
    ("order_id", "text"),
    [
        (0, "#0"),
        (1, "#1"),
        (2**40 - 1, "#1099511627775"),
        (2**40, "#1/0"),
        (7 << 40 | 1, "#7/1"),
        (2**63 - 1, "#8388607/1099511627775"),
        (-1, "#-1"),
        (-(2**63), "#-9223372036854775808"),
    ],
)
def test_an_order_id_shows_its_account(order_id: int, text: str):
    """LIM-4."""
    assert format_order_id(order_id) == text


ID = compose_order_id(7, 1)
REPORTS = [
    ("new #7/1 10 @ 100", Report(1, ID, 0, 100, 10, 10, 1, ReportKind.NEW, Side.BUY, 0, 0x80)),
    ("new #7/1 10 @ -5 slid on 2", Report(1, ID, 0, -5, 10, 10, 2, ReportKind.NEW, 1, 0, ReportFlag.SLID)),
    ("trade #7/1 4 @ 9 with #2", Report(1, ID, 2, 9, 4, 0, 1, ReportKind.TRADE, 1, 0, 1)),
    ("trade #7/1 4 @ 9 with #2 leaves 6 on 3", Report(1, ID, 2, 9, 4, 6, 3, ReportKind.TRADE, 1, 0, 1)),
    ("canceled #7/1 4 @ 9", Report(1, ID, 0, 9, 4, 0, 1, ReportKind.CANCELED, 1, 0, 0)),
    (
        "canceled #7/1 4 @ 9 with #2 leaves 6 self-trade on 3",
        Report(1, ID, 2, 9, 4, 6, 3, ReportKind.CANCELED, 1, Reason.SELF_TRADE, 0),
    ),
    ("replaced #7/1 10 @ 9", Report(1, ID, 0, 9, 10, 10, 1, ReportKind.REPLACED, 1, 0, 0)),
    (
        "replaced #7/1 10 @ 9 leaves 4 kept",
        Report(1, ID, 0, 9, 10, 4, 1, ReportKind.REPLACED, 1, 0, ReportFlag.PRIORITY_KEPT),
    ),
    (
        "replaced #7/1 10 @ 9 leaves 4 slid on 2",
        Report(1, ID, 0, 9, 10, 4, 2, ReportKind.REPLACED, 1, 0, ReportFlag.SLID),
    ),
    ("expired #7/1 4 @ 9 on 2", Report(1, ID, 0, 9, 4, 0, 2, ReportKind.EXPIRED, 1, 0, 0)),
    ("rejected #7/1 off-tick on 2", Report(1, ID, 0, 0, 0, 0, 2, ReportKind.REJECTED, 0, Reason.OFF_TICK, 0x80)),
    ("rejected #0 bad-instrument", Report(1, 0, 0, 0, 0, 0, 0, ReportKind.REJECTED, 0, Reason.BAD_INSTRUMENT, 0x80)),
    ("cancel-rejected #1 unknown-order", Report(1, 1, 0, 0, 0, 0, 1, ReportKind.CANCEL_REJECTED, 0, 34, 0)),
    ("replace-rejected #1 reason-99", Report(1, 1, 0, 0, 0, 0, 1, ReportKind.REPLACE_REJECTED, 0, 99, 0)),
    ("mass-canceled 3 on 1", Report(1, 0, 0, 0, 3, 0, 1, ReportKind.MASS_CANCELED, Scope.INSTRUMENT, 0, 0)),
    ("mass-canceled 3 account 7", Report(1, 7 << 40, 0, 0, 3, 0, 0, ReportKind.MASS_CANCELED, Scope.ACCOUNT, 0, 0)),
    ("mass-canceled 3 account 7 on 1", Report(1, 7 << 40, 0, 0, 3, 0, 1, ReportKind.MASS_CANCELED, 3, 0, 0)),
    ("mass-canceled 0 all", Report(1, 0, 0, 0, 0, 0, 0, ReportKind.MASS_CANCELED, Scope.VENUE, 0, 0)),
    (
        "instrument-defined 1 tick 5 lot 10 band -100 200 open",
        Report(1, 0, 200, -100, 5, 10, 1, ReportKind.INSTRUMENT_DEFINED, 2, 0, 0),
    ),
    ("limit-set max-quantity 500 account 7", Report(1, 7 << 40, 500, 0, 0, 0, 0, ReportKind.LIMIT_SET, 2, 0, 0)),
    ("limit-set kill 1 on 1", Report(1, 0, 1, 0, 0, 0, 1, ReportKind.LIMIT_SET, 1, 0, 0)),
    ("limit-set kill 0", Report(1, 0, 0, 0, 0, 0, 0, ReportKind.LIMIT_SET, 1, 0, 0)),
    ("limit-set 9 1 account 7 on 3", Report(1, 7 << 40, 1, 0, 0, 0, 3, ReportKind.LIMIT_SET, 9, 0, 0)),
    ("state-changed 1 pre-open", Report(1, 0, 0, 0, 0, 0, 1, ReportKind.STATE_CHANGED, 1, 0, 0)),
]


@pytest.mark.parametrize(("line", "report"), REPORTS)
def test_a_report_has_its_line(line: str, report: Report):
    """TEXT-2."""
    assert format_report(report) == line


def test_the_examples_hold_every_kind_of_report():
    """TEXT-2."""
    assert {report.kind for _, report in REPORTS} == set(ReportKind)


def test_every_reason_has_its_own_word():
    """TEXT-2."""
    assert set(REASON_WORDS) == set(Reason)
    assert len(set(REASON_WORDS.values())) == len(Reason)


@given(
    st.builds(
        Report,
        *[st.integers(-(2**63), 2**63 - 1)] * 4,
        *[st.integers(0, 2**32 - 1)] * 3,
        *[st.integers(0, 12) | st.integers(0, 255)] * 4,
    )
)
def test_any_report_prints_as_one_line(report: Report):
    """TEXT-2: a damaged one as well, which a tool may have to show."""
    line = format_report(report)

    assert line == " ".join(line.split())
    assert (line == f"raw {report.pack().hex()}") == (report.kind not in set(ReportKind))
