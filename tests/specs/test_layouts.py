"""The layout tables of the specification and the layouts of the code are the same, byte for byte."""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from struct import Struct, calcsize
from typing import NamedTuple

import numpy as np
import pytest

SPECS = Path(__file__).parents[2] / "specs"

# Where a layout is written in code: its dtype is NAME_DTYPE there, its struct NAME.  A table that is in none of these
# modules fails its test, so that no table stands without code.
MODULES = ("ferrox.messages", "ferrox.state", "ferrox.journal.layout", "ferrox.snapshot", "ferrox.entry", "ferrox.mold")

# The dtype's type string for each word of the tables' type column; "-" is bytes or a layout of its own.
TYPES = {"u8": "|u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "i64": "<i8", "u16b": ">u2", "u64b": ">u8"}
STRUCT_TYPES = {"B": "u8", "H": "u16", "I": "u32", "Q": "u64", "q": "i64", "s": "-", "x": "zero"}


class Row(NamedTuple):
    offset: int
    size: int
    type: str
    name: str


def read_layouts() -> dict[str, list[Row]]:
    layouts: dict[str, list[Row]] = {}
    for path in sorted(SPECS.glob("*.md")):
        for name, block in re.findall(
            r"^```layout (\S+)\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE
        ):
            header, *lines = block.splitlines()
            assert header.split() == ["offset", "size", "type", "name"]
            assert name not in layouts, f"layout {name} stands twice"
            layouts[name] = [Row(int(o), int(s), t, n) for o, s, t, n in (line.split() for line in lines)]
    return layouts


LAYOUTS = read_layouts()
every_layout = pytest.mark.parametrize("name", sorted(LAYOUTS))


def in_code(name: str) -> list[object]:
    """Return the dtype and the struct that the code has by this name, wherever they are."""
    found = []
    for module in MODULES:
        if find_spec(module) is None:
            continue
        there = import_module(module)
        found += [getattr(there, word) for word in (f"{name}_DTYPE", name) if hasattr(there, word)]
    return found


def rows_of_dtype(dtype: np.dtype[np.void]) -> list[Row]:
    assert dtype.names is not None
    assert dtype.fields is not None
    return [Row(dtype.fields[name][1], dtype.fields[name][0].itemsize, "", name) for name in dtype.names]


def rows_of_struct(struct: Struct) -> list[Row]:
    order = {"<": "", ">": "b"}[struct.format[0]]
    rows, offset = [], 0
    for count, letter in re.findall(r"(\d*)([a-zA-Z?])", struct.format[1:]):
        single = letter in "sx"
        for _ in range(1 if single else int(count or 1)):
            size = calcsize(f"<{count if single else ''}{letter}")
            kind = STRUCT_TYPES[letter]
            rows.append(Row(offset, size, kind + order if kind in TYPES else kind, ""))
            offset += size
    return rows


def test_the_known_layouts_are_found():
    assert set(LAYOUTS) >= {
        "NEW_ORDER",
        "CANCEL_ORDER",
        "MASS_CANCEL",
        "DEFINE_INSTRUMENT",
        "SET_TRADING_STATE",
        "SET_LIMIT",
        "REPORT",
        "RECORD",
        "SNAPSHOT_HEADER",
        "SNAPSHOT_ORDER",
    }


@every_layout
def test_a_table_covers_every_byte_once(name: str):
    rows = LAYOUTS[name]

    ends = [row.offset + row.size for row in rows]

    assert [row.offset for row in rows] == [0, *ends[:-1]]
    assert all(row.size > 0 for row in rows)
    for row in rows:
        if row.type in TYPES:
            assert row.size == np.dtype(TYPES[row.type]).itemsize, row
            # Big-endian fields are of a protocol that others laid out.
            assert row.type.endswith("b") or row.offset % row.size == 0, f"{row} is not aligned"
        else:
            assert row.type in ("zero", "-"), row


@every_layout
def test_a_table_stands_in_the_code(name: str):
    assert in_code(name), f"none of {', '.join(MODULES)} has {name} or {name}_DTYPE"


@every_layout
def test_the_dtype_and_the_struct_are_the_table(name: str):
    rows = LAYOUTS[name]
    size = rows[-1].offset + rows[-1].size

    for layout in in_code(name):
        if isinstance(layout, np.dtype):
            named = [row for row in rows if row.type != "zero"]
            assert layout.itemsize == size
            assert rows_of_dtype(layout) == [row._replace(type="") for row in named]
            assert layout.fields is not None
            for row in named:
                if row.type in TYPES:
                    assert layout.fields[row.name][0] == np.dtype(TYPES[row.type]), row
        elif isinstance(layout, Struct):
            assert layout.size == size
            assert_struct_is_table(layout, rows)


def assert_struct_is_table(struct: Struct, rows: list[Row]) -> None:
    """A struct may read a reserved place as a number, and one place of bytes as several fields."""
    fields = rows_of_struct(struct)
    for row in rows:
        inside = [field for field in fields if row.offset <= field.offset < row.offset + row.size]
        assert inside, row
        assert inside[0].offset == row.offset, row
        assert sum(field.size for field in inside) == row.size, row
        if row.type in TYPES:
            assert [field.type for field in inside] == [row.type], row
        if row.type == "zero":
            assert all(field.type[0] in "zu" for field in inside), row


def test_a_command_of_16_bytes_is_the_first_half_of_the_shape():
    """WIRE-2: instrument and identity stand at one place in every command, and kind is the first byte (WIRE-3)."""
    commands = ["NEW_ORDER", "CANCEL_ORDER", "MASS_CANCEL", "DEFINE_INSTRUMENT", "SET_TRADING_STATE", "SET_LIMIT"]

    for name in commands:
        places = {row.name: (row.offset, row.size, row.type) for row in LAYOUTS[name]}
        assert places["kind"] == (0, 1, "u8")
        assert places["instrument"] == (4, 4, "u32")


@pytest.mark.parametrize("wrong", ["size", "name", "type"])
def test_a_table_that_is_wrong_would_be_found(wrong: str, monkeypatch):
    """The comparison can fail: one slip in the table of CANCEL_ORDER and it does."""
    rows = list(LAYOUTS["CANCEL_ORDER"])
    slips = {
        "size": Row(8, 4, "u32", "order_id"),
        "name": Row(8, 8, "i64", "ident"),
        "type": Row(8, 8, "u64", "order_id"),
    }
    monkeypatch.setitem(LAYOUTS, "CANCEL_ORDER", [*rows[:-1], slips[wrong]])

    with pytest.raises(AssertionError):
        test_the_dtype_and_the_struct_are_the_table("CANCEL_ORDER")
