"""The numbers in the specification's tables and sentences are the numbers in `ferrox.terms`."""

import re
from pathlib import Path

from ferrox import terms
from ferrox.decode import LIMIT_TAKES
from ferrox.messages import FRAME_SIZE, REPORT_SIZE
from ferrox.terms import (
    CommandKind,
    Limit,
    Reason,
    ReportFlag,
    ReportKind,
    Scope,
    SelfTrade,
    Side,
    TimeInForce,
    TradingState,
)

SPECS = Path(__file__).parents[2] / "specs"


def text(name: str) -> str:
    return (SPECS / name).read_text("utf-8")


def numbered(words: str) -> dict[str, int]:
    """Return the terms of a list like "1 buy, 2 sell"."""
    return {word.upper().replace("-", "_"): int(number) for number, word in re.findall(r"(\d+) ([a-zA-Z-]+)", words)}


def sentence(name: str, beginning: str) -> str:
    found = re.search(rf"{re.escape(beginning)}(.*?)\.(?:\s|$)", text(name), re.DOTALL)
    assert found, f"{name} has no sentence that begins with {beginning!r}"
    return found[1]


def members(words) -> dict[str, int]:
    return {term.name: int(term) for term in words}


def test_the_reasons_are_those_of_the_tables_in_order_of_precedence():
    """REJECT-0: the rules, the reasons and the numbers ascend together."""
    rows = re.findall(r"^\| \*\*REJECT-(\d+)\*\* \| (\w+) \| (\d+) \|", text("rejects.md"), re.MULTILINE)
    of_cancels = {"NONE": 0, "SELF_TRADE": 64, "MASS_CANCEL": 65, "TOTAL_FILLED": 66}

    table = {name: int(number) for _, name, number in rows}

    assert all(rule == number for rule, _, number in rows)
    assert list(table.values()) == sorted(table.values())
    assert table | of_cancels == members(Reason)


def test_the_reasons_of_cancels_are_those_of_the_report_rules():
    """REPORT-5."""
    rule = text("reports.md").split("**REPORT-5**")[1].splitlines()[0]
    named = dict(re.findall(r"([A-Z_]+) \((\d+)", rule))

    assert {name: int(number) for name, number in named.items()} == {
        reason.name: int(reason) for reason in Reason if reason >= 64
    }


def test_the_kinds_of_reports_are_those_of_the_table():
    """REPORT-3."""
    rows = re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", text("reports.md"), re.MULTILINE)

    assert {name: int(number) for name, number in rows} == members(ReportKind)


def test_the_flags_of_reports_are_those_of_the_rule():
    """REPORT-4."""
    bits = dict(re.findall(r"([A-Z_]+) \(bit (\d)", text("reports.md")))

    assert {name: 1 << int(bit) for name, bit in bits.items()} == members(ReportFlag)


def test_the_kinds_of_commands_are_those_of_the_rule():
    """WIRE-3."""
    named = {word: int(number) for number, word in re.findall(r"(\d) (\w+)", sentence("wire.md", "is its kind:"))}

    assert named == {term.name.title().replace("_", ""): int(term) for term in CommandKind}


def test_the_sizes_of_frames_are_those_of_the_rule():
    """WIRE-1."""
    rule = text("wire.md").split("**WIRE-1**")[1].splitlines()[0]
    long = [kind for kind in CommandKind if kind.name.title().replace("_", "") in rule.split("have 32 bytes")[0]]

    assert {kind: 32 if kind in long else 16 for kind in CommandKind} == FRAME_SIZE
    assert f"an ExecutionReport has {REPORT_SIZE}." in rule


def test_the_values_of_fields_are_those_of_the_wire_page():
    assert numbered(sentence("wire.md", "`side`:")) == members(Side)
    assert numbered(sentence("wire.md", "`time_in_force`:")) == members(TimeInForce)
    assert numbered(text("wire.md").split("the self-trade mode")[1].split(")")[0]) == members(SelfTrade)
    assert numbered(sentence("wire.md", "`state`:")) == members(TradingState)
    scopes = sentence("wire.md", "`scope`:").replace("account in instrument", "account-in-instrument")
    assert numbered(scopes) == members(Scope)
    assert numbered(sentence("wire.md", "`limit`:")) == members(Limit)
    assert "bit 0 market, bit 1 post-only, bit 2 slide, bits 4 to 6 the self-trade mode" in text("wire.md")
    assert [int(flag) for flag in terms.OrderFlag] == [1, 2, 4]
    assert (terms.SELF_TRADE_SHIFT, terms.SELF_TRADE_MASK) == (4, 0b111 << 4)


def test_the_limits_are_the_constants():
    """LIM-1 .. LIM-8: every figure in the sentence of the rule."""
    rules = dict(re.findall(r"^\*\*(LIM-\d+)\*\* (.*)$", text("limits.md"), re.MULTILINE))

    def figures(rule: str) -> list[int]:
        plain = rules[rule].replace(",", "")
        found = re.findall(r"-?\(?\d+(?:\^\d+)?(?:-1)?\)?", plain)
        return [int(eval(figure.replace("^", "**"), {})) for figure in found]

    assert figures("LIM-1") == [-terms.PRICE_MAX, terms.PRICE_MAX]
    assert figures("LIM-2") == [1, terms.QUANTITY_MAX]
    assert figures("LIM-3") == [1, terms.ORDER_ID_MAX]
    assert figures("LIM-4") == [23, 0, terms.ACCOUNT_MAX, terms.ACCOUNT_SHIFT]
    assert figures("LIM-5") == [1, terms.INSTRUMENT_MAX]
    assert figures("LIM-6") == [1, terms.TICK_MAX] == [1, terms.LOT_MAX]
    assert figures("LIM-7") == [terms.ORDER_CAPACITY, 1, terms.ORDER_CAPACITY_MAX]
    assert figures("LIM-8") == [terms.INSTRUMENT_CAPACITY, 1, terms.INSTRUMENT_CAPACITY_MAX]
    assert terms.ACCOUNT_MAX.bit_length() + terms.ACCOUNT_SHIFT == terms.ORDER_ID_MAX.bit_length()
    assert terms.REFERENCE_MAX == 2**terms.ACCOUNT_SHIFT - 1


def test_the_limits_of_the_risk_page_are_the_terms_with_their_ranges():
    """REJECT-18: each limit, what it is for and the greatest value, as decoding has them."""
    page = text("risk.md").split("The limits that a SetLimit sets:")[1]
    rows = re.findall(r"^\| ([A-Z_]+) \| (\d) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)

    assert {name: int(number) for name, number, _, _ in rows} == members(Limit)
    for name, number, named, values in rows:
        found = re.search(r"0 \.\. 2\^(\d+)-1", values)
        greatest = 2 ** int(found[1]) - 1 if found else 1
        assert LIMIT_TAKES[int(number)] == ("instrument" in named, "account" in named, greatest), name


def test_the_sum_of_all_leaves_fits_in_58_bits():
    """LIM-9: the greatest capacity times the greatest quantity."""
    assert terms.ORDER_CAPACITY_MAX * terms.QUANTITY_MAX < 2**58
