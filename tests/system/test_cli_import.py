"""`ferrox import`: a CSV of orders, well and badly written."""

import json
import sys
from io import BytesIO
from pathlib import Path

import pytest

from ferrox import cli
from ferrox.journal import read
from ferrox.messages import RECORD
from ferrox.orders_csv import OrdersCsv, OrdersCsvError
from ferrox.text import format_command

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; what starts a verb stands beside this file

from test_cli import expect_error, ferrox_json, ferrox_run  # type: ignore[import-not-found]

PLAIN = b"side,price,quantity\n"


def imported(text, tmp_path, *options):
    """Import a CSV and return the commands of the journal as text."""
    data = text if isinstance(text, bytes) else text.encode()
    ferrox_json("import", "-", "--out", "new", *options, cwd=tmp_path, stdin=data)
    return commands_in(tmp_path / "new")


def commands_in(directory):
    records = b"".join(read(directory))
    frames = [records[place + 32 : place + 32 + records[place + 25]] for place in range(0, len(records), 64)]
    return [format_command(frame) for frame in frames if frame]


@pytest.fixture
def refuse(capsys, tmp_path):
    """Import a CSV that is wrong, in this process; give the lines that say so, and expect nothing left behind."""

    def refuse(text):
        (tmp_path / "orders.csv").write_text(text)
        status = cli.run(["import", str(tmp_path / "orders.csv"), "--out", str(tmp_path / "new")])
        out, err = capsys.readouterr()
        assert (status, out) == (3, "")
        assert not (tmp_path / "new").exists()
        return [line.removeprefix(f"ferrox: {tmp_path / 'orders.csv'}: ") for line in err.splitlines()]

    return refuse


def refused(text, tmp_path, *options):
    """Import a CSV that is wrong; return the lines that say so, and expect nothing left behind."""
    data = text if isinstance(text, bytes) else text.encode()
    run = ferrox_run("import", "-", "--out", "new", *options, cwd=tmp_path, stdin=data)
    assert run.returncode == 3, run.stderr.decode()
    assert run.stdout == b""
    assert not (tmp_path / "new").exists()
    lines = run.stderr.decode().splitlines()
    assert all(line.startswith("ferrox: standard input: ") for line in lines)
    return [line.removeprefix("ferrox: standard input: ") for line in lines]


def test_three_columns_are_enough(tmp_path):
    assert imported("side,price,quantity\nsell,100,5\nbuy,100,3\n", tmp_path) == [
        "instrument 1 tick 1 lot 1 band -1099511627775 1099511627775 open",
        "sell #1 5 @ 100",
        "buy #2 3 @ 100",
    ]


def test_every_column_and_every_command_has_its_meaning(tmp_path):
    text = """\
# orders of a day
command,side,order_id,account,price,quantity,time_in_force,flags,self_trade,instrument,time_ns,tick,lot,band_low,band_high,state,limit,value
instrument,,,,,,,,,3,10,5,10,-100,100,pre-open,,
state,,,,,,,,,3,20,,,,,open,,
new,B,1,7,-15,20,,post-only slide,decrement,3,30,,,,,,,
,sell,8/2,,,10,fok,market,,3,30,,,,,,,
replace,buy,#1,7,-20,30,gtc,,Cancel_Taker,3,40,,,,,,,

cancel,,1,7,,,,,,3,50,,,,,,,
mass-cancel,,,,,,,,,3,60,,,,,,,
mass-cancel,,,7,,,,,,,60,,,,,,,
mass-cancel,,,0,,,,,,3,60,,,,,,,
mass-cancel,,,,,,,,,,60,,,,,,,
limit,,,7,,,,,,,60,,,,,,Max_Quantity,500
limit,,,,,,,,,9,60,,,,,,collar,50
limit,,,,,,,,,,60,,,,,,kill,0
"""
    assert imported(text, tmp_path) == [
        "instrument 3 tick 5 lot 10 band -100 100 pre-open",
        "state 3 open",
        "buy #7/1 20 @ -15 post-only slide stp=decrement on 3",
        "sell #8/2 10 market fok on 3",
        "replace buy #7/1 30 @ -20 stp=cancel-taker on 3",
        "cancel #7/1 on 3",
        "mass-cancel on 3",
        "mass-cancel account 7",
        "mass-cancel account 0 on 3",
        "mass-cancel all",
        "limit max-quantity 500 account 7",
        "limit collar 50 on 9",
        "limit kill 0",
    ]
    times = [RECORD.unpack(record)[3] for batch in read(tmp_path / "new") for record in split(batch)]
    assert times[:-1] == [10, 20, 30, 30, 40, 50, *[60] * 7]


@pytest.mark.parametrize("row", ['buy, "100", 5', '"buy" ,"100","5"', ' "buy","100" , 5 ', 'buy,100,"5"'])
def test_cells_may_be_quoted_with_blanks_around_the_quotes(row, tmp_path):
    assert imported(f"side,price,quantity\n{row}\n", tmp_path)[1:] == ["buy #1 5 @ 100"]


def test_a_long_line_of_blanks_and_quotes_is_judged_in_one_pass():
    # In cubic time this would not come to an end.
    for cell in (" " * 60_000 + 'a"1"', '"' + '""' * 30_000 + "x", '"' + " " * 60_000 + '"x', "a" + " " * 60_000 + '"'):
        with pytest.raises(OrdersCsvError, match="quotes that close"):
            b"".join(OrdersCsv(BytesIO(f"side,price,quantity\nbuy,{cell},5\n".encode())))


def split(records):
    return [records[place : place + 64] for place in range(0, len(records), 64)]


def test_options_define_the_instruments_that_no_row_defines(tmp_path):
    text = "side,price,quantity,instrument\nsell,10.25,10,2\nbuy,-0.5,10,1\nbuy,3,10,2\n"

    commands = imported(text, tmp_path, "--tick", "25", "--lot", "10", "--band", "-500", "2000", "--decimals", "2")

    assert commands == [
        "instrument 2 tick 25 lot 10 band -500 2000 open",
        "sell #1 10 @ 1025 on 2",
        "instrument 1 tick 25 lot 10 band -500 2000 open",
        "buy #2 10 @ -50",
        "buy #3 10 @ 300 on 2",
    ]


def test_no_define_leaves_instruments_to_the_rows(tmp_path):
    assert imported("side,price,quantity\nbuy,1,1\n", tmp_path, "--no-define") == ["buy #1 1 @ 1"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfside,price,quantity\r\nbuy,100,5\r\n",
        b"side,price,quantity\nbuy,100,5",
        b'"side","price","quantity"\n"buy","100","5"\n',
        b" Side , PRICE ,quantity\n  buy ,\t100, 5 \n\n\n",
        b"# first\n\n#\nquantity,side,price\n5,BUY,+100\n",
        b"side,price,quantity,order_id\nb,100.00,5,1\n",
    ],
)
def test_what_spreadsheets_do_to_a_file_does_no_harm(data, tmp_path):
    assert imported(data, tmp_path)[1:] == ["buy #1 5 @ 100"]


def test_a_file_and_a_pipe_of_the_same_bytes_give_the_same_journal(tmp_path):
    data = PLAIN + b"buy,100,5\n" * 30_000
    (tmp_path / "orders.csv").write_bytes(data)

    assert ferrox_run("import", "orders.csv", "--out", "one", cwd=tmp_path).returncode == 0
    assert ferrox_run("import", "-", "--out", "two", cwd=tmp_path, stdin=data).returncode == 0

    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_other_bytes_give_a_journal_with_another_uuid(tmp_path):
    one = ferrox_json("import", "-", "--out", "one", cwd=tmp_path, stdin=PLAIN + b"buy,1,1\n")
    two = ferrox_json("import", "-", "--out", "two", cwd=tmp_path, stdin=PLAIN + b"buy,1,2\n")

    assert one["uuid"] != two["uuid"]


def test_an_imported_journal_is_sound_and_replays(tmp_path):
    imported("side,price,quantity\nsell,100,5\nbuy,100,3\n", tmp_path)

    value = ferrox_json("verify", "new", cwd=tmp_path)

    assert value["verdict"] == "clean"
    assert ferrox_json("replay", "new", cwd=tmp_path)["trades"] == 1


def test_times_that_go_back_are_raised_and_told(tmp_path):
    run = ferrox_run(
        "import",
        "-",
        "--out",
        "new",
        cwd=tmp_path,
        stdin=b"side,price,quantity,time_ns\nbuy,1,1,50\nbuy,1,1,40\nbuy,1,1,60\n",
    )

    assert run.returncode == 0
    assert "1 row came with an earlier time" in run.stderr.decode()


def test_a_header_alone_is_an_empty_flow(tmp_path):
    assert ferrox_json("import", "-", "--out", "new", cwd=tmp_path, stdin=PLAIN)["commands"] == 0


@pytest.mark.parametrize(
    ("row", "column", "value", "expected"),
    [
        ("new,buyy,1,100,5", "side", "'buyy'", "buy, sell"),
        ("new,,1,100,5", "side", "nothing", "buy, sell"),
        ("neww,buy,1,100,5", "command", "'neww'", "new, cancel, replace"),
        ("new,buy,0,100,5", "order_id", "'0'", "ACCOUNT/REFERENCE"),
        ("new,buy,,100,5", "order_id", "nothing", "ACCOUNT/REFERENCE"),
        ("new,buy,1/x,100,5", "order_id", "'1/x'", "ACCOUNT/REFERENCE"),
        ("new,buy,9999999999/1,100,5", "order_id", "'9999999999/1'", "ACCOUNT/REFERENCE"),
        (f"new,buy,{2**63},100,5", "order_id", f"'{2**63}'", "ACCOUNT/REFERENCE"),
        ("new,buy,1,NaN,5", "price", "'NaN'", "--decimals"),
        ("new,buy,1,inf,5", "price", "'inf'", "a price"),
        ("new,buy,1,1e3,5", "price", "'1e3'", "a price"),
        ("new,buy,1,10.5,5", "price", "'10.5'", "--decimals"),
        ("new,buy,1,,5", "price", "nothing", "a price"),
        (f"new,buy,1,{2**40},5", "price", f"'{2**40}'", "a price"),
        ("new,buy,1,١٢,5", "price", "'١٢'", "a price"),
        ("new,buy,1,100,0", "quantity", "'0'", "from 1 to 2147483647"),
        ("new,buy,1,100,-5", "quantity", "'-5'", "from 1 to 2147483647"),
        ("new,buy,1,100,2147483648", "quantity", "'2147483648'", "from 1 to 2147483647"),
        ("new,buy,1,100,5.0", "quantity", "'5.0'", "from 1 to 2147483647"),
        ("new,buy,1,100," + "9" * 5000, "quantity", "'999", "from 1 to 2147483647"),
        ("new,buy,1,100,5\0", "quantity", "'5\\x00'", "from 1 to 2147483647"),
        ("cancel,,,,", "order_id", "nothing", "an order id"),
    ],
)
def test_a_wrong_cell_is_told_with_line_column_value_and_what_could_stand_there(row, column, value, expected, refuse):
    (line,) = refuse(f"command,side,order_id,price,quantity\nnew,buy,1,100,5\n{row}\n")

    assert line.startswith(f"line 3, column {column}: expected ")
    assert f", found {value}" in line
    assert expected in line
    assert len(line) < 400


@pytest.mark.parametrize(
    ("columns", "row", "column"),
    [
        ("time_in_force", "day", "time_in_force"),
        ("flags", "fast", "flags"),
        ("self_trade", "never", "self_trade"),
        ("instrument", "0", "instrument"),
        ("instrument", "1048576", "instrument"),
        ("time_ns", "-1", "time_ns"),
        ("time_ns", "2026-01-05", "time_ns"),
        ("account", "8388608", "account"),
        ("flags", "market", "price"),
        ("flags", "slide", "flags"),
        ("flags,time_in_force", "post-only,ioc", "flags"),
        ("flags,time_in_force,price", "market,gtc,", "time_in_force"),
        ("command,band_low,band_high", "instrument,9,1", "band_low"),
        ("command,tick", "instrument,0", "tick"),
        ("command,lot", "instrument,-1", "lot"),
        ("command,state", "state,ajar", "state"),
        ("command,state", "state,", "state"),
        ("command,time_in_force", "replace,ioc", "time_in_force"),
        ("command,limit", "limit,speed", "limit"),
        ("command,limit,value", "limit,kill,", "value"),
        ("command,limit,value", "limit,kill,2", "value"),
        ("command,limit,value,instrument", "limit,order-rate,2,1", "instrument"),
        ("command,limit,value,account", "limit,collar,2,7", "account"),
    ],
)
def test_every_column_is_checked(columns, row, column, refuse):
    names, cells = (["side", "quantity", "order_id"], ["buy", "5", "1"])
    if "price" not in columns:
        names, cells = [*names, "price"], [*cells, "100"]

    (line,) = refuse(",".join([*names, columns]) + "\n" + ",".join([*cells, row]) + "\n")

    assert line.startswith(f"line 2, column {column}: expected ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["the file is empty", "names of the columns"]),
        (b"\n\n# only this\n", ["names of the columns"]),
        (b"side,price,quantty\n", ["line 1", "quantty", "(quantity?)"]),
        (b"side,price,quantity,side\n", ["line 1", "'side'", "each column once"]),
        (b"price,quantity\n1,1\n", ["side, price and quantity"]),
        (b"buy,100,5\n", ["line 1", "'buy'", "name of a column"]),
        ("side,price,quantity\n".encode("utf-16"), ["UTF-16", "UTF-8"]),
        (bytes(range(256)) * 40, ["line 1"]),
        (PLAIN + b"buy,100\n", ["line 2", "3 cells", "found '2 cells'"]),
        (PLAIN + b"buy,100,5,6\n", ["line 2", "3 cells", "found '4 cells'"]),
        (PLAIN + b'buy,"100,5\nsell,1,1\n', ["line 2", "quotes that close"]),
        (PLAIN + b"\xff\xfe,1,1\n", ["line 2, column side", "\\xff"]),
        (PLAIN + b"buy,1," + b"9" * 10_000_000 + b"\n", ["line 2", "at most 65536 bytes"]),
        (b"x" * 10_000_000, ["line 1", "at most 65536 bytes"]),
    ],
)
def test_a_file_that_is_no_csv_of_orders_is_told_where_it_ceases_to_be_one(data, words, tmp_path):
    line = refused(data, tmp_path)[0]

    for word in words:
        assert word in line
    assert len(line) < 500


def test_twenty_rows_at_fault_are_told_and_no_more(tmp_path):
    few = refused(PLAIN + b"buy,x,1\nbuy,1,1\n" * 19, tmp_path)
    many = refused(PLAIN + b"buy,x,1\nbuy,1,1\n" * 5000, tmp_path)

    assert [line.split(",")[0] for line in few] == [f"line {number}" for number in range(2, 40, 2)]
    assert len(many) == 21
    assert "given up" in many[-1]


def test_nothing_is_left_behind_when_the_last_of_many_rows_is_wrong(tmp_path):
    (line,) = refused(PLAIN + b"buy,1,1\n" * 30_000 + b"buy,1,x\n", tmp_path)

    assert line.startswith("line 30002, column quantity")


def test_an_error_in_json_tells_all_rows(tmp_path):
    run = ferrox_run("import", "-", "--out", "new", "--json", cwd=tmp_path, stdin=PLAIN + b"b,x,1\ns,1,y\n")

    value = json.loads(run.stdout)
    assert value["exit_status"] == run.returncode == 3
    assert len(value["error"].splitlines()) == 2


@pytest.mark.parametrize(("name", "words"), [("missing.csv", "No such file"), (".", "a directory")])
def test_what_is_no_file_is_named(name, words, tmp_path):
    expect_error(ferrox_run("import", name, "--out", "new", cwd=tmp_path), 2, words)
    assert not (tmp_path / "new").exists()
