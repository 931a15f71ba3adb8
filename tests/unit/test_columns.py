"""Reports as columns: views without copies, the same table in every reader, files in constant memory."""

import csv
import hashlib
import subprocess
import sys
import tracemalloc
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ferrox as fx
from ferrox import columns
from ferrox.columns import COLUMNS, KIND_WORDS, REASON_WORDS, SIDE_WORDS, join, term_of
from ferrox.messages import COMMAND_DTYPE, REPORT_DTYPE, Report
from ferrox.terms import Limit, Reason, ReportKind, Scope, Side, TimeInForce, TradingState

FRAMES = b"".join(
    report.pack()
    for report in [
        Report(1, 0, 1000, -1000, 1, 1, 1, ReportKind.INSTRUMENT_DEFINED, TradingState.PRE_OPEN, 0, 0x80),
        Report(2, 1, 0, 100, 10, 10, 1, ReportKind.NEW, Side.SELL, 0, 0x80),
        Report(3, 7 << 40 | 2, 0, -101, 15, 15, 1, ReportKind.NEW, Side.BUY, 0, 0),
        Report(3, 7 << 40 | 2, 1, 100, 10, 5, 1, ReportKind.TRADE, Side.BUY, 0, 0x81),
        Report(4, 9, 0, 0, 0, 0, 2, ReportKind.REJECTED, 0, Reason.UNKNOWN_INSTRUMENT, 0x80),
        Report(5, 7 << 40 | 2, 0, 100, 5, 0, 1, ReportKind.CANCELED, Side.BUY, Reason.MASS_CANCEL, 0),
        Report(5, 0, 0, 0, 1, 0, 0, ReportKind.MASS_CANCELED, Scope.VENUE, 0, 0x80),
        Report(6, 0, 0, 0, 0, 0, 1, ReportKind.STATE_CHANGED, TradingState.CLOSED, 0, 0x80),
    ]
)
KINDS = ["instrument-defined", "new", "new", "trade", "rejected", "canceled", "mass-canceled", "state-changed"]
SIDES = ["pre-open", "sell", "buy", "buy", None, "buy", "venue", "closed"]
REASONS = [None, None, None, None, "unknown-instrument", "mass-cancel", None, None]


@pytest.fixture
def reports():
    return fx.Reports(FRAMES)


# ------------------------------------------------------------------------------------------------- as a sequence


def test_reports_are_a_sequence_of_typed_reports(reports):
    assert len(reports) == 8
    assert list(reports)[3] == reports[3] == reports[-5] == Report(3, 7 << 40 | 2, 1, 100, 10, 5, 1, 2, 1, 0, 0x81)
    assert reports[np.int64(1)].order_id == 1
    for index in (8, -9):
        with pytest.raises(IndexError, match="of 8"):
            reports[index]


def test_slices_share_the_bytes(reports):
    assert list(reports[2:5]) == list(reports)[2:5]
    assert list(reports[::-2]) == list(reports)[::-2]
    assert list(reports[5:2]) == []
    assert np.shares_memory(reports[2:5].array, reports.array)


def test_masks_and_indices_choose_reports(reports):
    assert list(reports[reports.quantity >= 10]) == [reports[1], reports[2], reports[3]]
    assert list(reports[[4, 0]]) == [reports[4], reports[0]]
    assert list(reports[[]]) == []


def test_reports_are_equal_when_their_bytes_are(reports):
    assert reports == fx.Reports(bytearray(FRAMES))
    assert reports != reports[1:]
    assert reports != FRAMES
    assert hash(reports) == hash(fx.Reports(FRAMES))
    assert bytes(reports) == reports.frames == FRAMES
    assert join([reports[:3], bytes(reports[3:])]) == reports


@pytest.mark.parametrize("frames", [bytes(47), np.zeros(2, np.int64)])
def test_what_is_no_reports_is_refused(frames):
    with pytest.raises(ValueError, match=r"48 bytes|REPORT_DTYPE"):
        fx.Reports(frames)


def test_a_buffer_that_changes_later_changes_no_reports():
    buffer = bytearray(FRAMES)
    reports = fx.Reports(memoryview(buffer))

    buffer[:] = bytes(len(buffer))

    assert reports == fx.Reports(FRAMES)


# ---------------------------------------------------------------------------------------------------- as arrays


def test_the_array_is_a_read_only_view_of_the_bytes(reports):
    assert reports.array.dtype == REPORT_DTYPE
    assert np.shares_memory(reports.array, np.frombuffer(FRAMES, "u1"))
    with pytest.raises(ValueError, match="read-only"):
        reports.price[0] = 1


def test_every_field_is_a_column(reports):
    for name in COLUMNS:
        assert getattr(reports, name).tolist() == [getattr(report, name) for report in reports]
    assert reports.account.tolist() == [0, 0, 7, 7, 0, 7, 0, 0]


def test_a_limit_is_told_by_its_word_and_its_value_is_no_order():
    limit = Report(1, 7 << 40, 9 << 40 | 1, 0, 0, 0, 0, ReportKind.LIMIT_SET, Limit.MAX_NOTIONAL, 0, 0x80)
    reports = fx.Reports(limit.pack())

    assert pl.DataFrame(reports).rows() == [
        (1, 7 << 40, 9 << 40 | 1, 0, 0, 0, 0, "limit-set", "max-notional", None, 128)
    ]
    assert [len(reports.where(account=account)) for account in (7, 9)] == [1, 0]
    assert len(reports.where(order_id=9 << 40 | 1)) == 0
    assert len(reports.where(side=3)) == 0


def test_numpy_takes_reports_for_an_array(reports):
    assert np.asarray(reports) is reports.array
    assert np.array(reports).flags.writeable
    assert np.asarray(reports, REPORT_DTYPE) is reports.array
    with pytest.raises(ValueError, match="without a copy"):
        reports.__array__(np.dtype([("price", "f8")]), copy=False)


def test_where_chooses_by_names_numbers_and_masks(reports):
    assert list(reports.trades) == [reports[3]]
    assert list(reports.rejects) == [reports[4]]
    assert list(reports.where(kind="NEW", side="buy")) == [reports[2]]
    assert list(reports.where(kind=("new", ReportKind.TRADE, 6))) == [reports[1], reports[2], reports[3], reports[4]]
    assert list(reports.where(reason="mass-cancel")) == [reports[5]]
    assert list(reports.where(instrument=2)) == [reports[4]]
    assert list(reports.where(reports.price < 0, kind=1)) == [reports[2]]
    with pytest.raises(ValueError, match="kind 'fill' is none of: new, trade"):
        reports.where(kind="fill")
    with pytest.raises(ValueError, match="a mask is 8 booleans"):
        reports.where([True])


def test_where_finds_an_order_as_taker_and_as_maker(reports):
    assert list(reports.where(order_id=1)) == [reports[1], reports[3]]
    assert list(reports.where(order_id=[9, 7 << 40 | 2])) == [reports[index] for index in (2, 3, 4, 5)]
    assert list(reports.where(account=7)) == [reports[index] for index in (2, 3, 5)]
    assert list(reports.where(account=0)) == [reports[index] for index in (1, 3, 4)]
    assert list(reports.where(order_id=1000)) == []  # the band of a definition is no order


# ------------------------------------------------------------------------------------- Arrow: one table everywhere


def rows_of(table):
    return {name: table[name] for name in COLUMNS}


def expected():
    numbers = {name: [getattr(report, name) for report in fx.Reports(FRAMES)] for name in COLUMNS}
    return numbers | {"kind": KINDS, "side": SIDES, "reason": REASONS}


def test_pyarrow_reads_the_stream(reports):
    table = pa.table(reports)

    assert rows_of(table.to_pydict()) == expected()
    assert table.schema.field("quantity").type == pa.uint32()
    assert table.schema.field("kind").type == pa.dictionary(pa.int8(), pa.string())
    assert table.equals(reports.to_arrow())


def test_polars_reads_the_stream(reports):
    frame = pl.DataFrame(reports)

    assert rows_of(frame.to_dict(as_series=False)) == expected()
    assert frame.group_by("kind").len().filter(pl.col("kind") == "new")["len"].to_list() == [2]


def test_pandas_reads_the_stream(reports):
    frame = pd.DataFrame.from_arrow(reports)

    assert isinstance(frame["kind"].dtype, pd.CategoricalDtype)
    found = {name: [None if pd.isna(value) else value for value in frame[name].tolist()] for name in COLUMNS}
    assert found == expected()


def test_duckdb_reads_the_stream(reports):
    rows: Any = duckdb.sql(
        "select kind, side, sum(quantity) from reports where side = 'buy' group by all order by kind"
    )

    assert rows.fetchall() == [("canceled", "buy", 5), ("new", "buy", 15), ("trade", "buy", 10)]


def test_a_stream_of_many_batches_is_one_table(reports, monkeypatch):
    monkeypatch.setattr(columns, "BATCH_ROWS", 3)

    assert rows_of(pl.DataFrame(reports).to_dict(as_series=False)) == expected()
    assert pa.table(reports).column("kind").num_chunks == 3


def test_no_reports_are_a_table_of_no_rows():
    nothing = fx.Reports()

    assert pl.DataFrame(nothing).shape == (0, len(COLUMNS))
    assert nothing.to_arrow().num_rows == len(nothing) == 0
    assert nothing.digest() == hashlib.sha256(b"").hexdigest()


def test_every_term_has_its_word_and_an_unknown_number_has_none():
    frames = b"".join(Report(1, 0, 0, 0, 0, 0, 0, kind, 200, kind, 0).pack() for kind in range(256))
    table = fx.Reports(frames).to_arrow().to_pydict()

    assert [word for word in table["kind"] if word] == KIND_WORDS
    assert [word for word in table["reason"] if word] == REASON_WORDS
    assert set(table["side"]) == {None}
    assert SIDE_WORDS[:2] == ["buy", "sell"]


def test_without_pyarrow_the_error_names_the_extra_and_csv_still_works(tmp_path):
    program = """
import sys
sys.modules["pyarrow"] = None
import ferrox as fx
reports = fx.Reports(bytes(48))
reports.write(sys.argv[1] + "/reports.csv")
for use in (reports.to_arrow, reports.__arrow_c_stream__, lambda: reports.write(sys.argv[1] + "/reports.parquet")):
    try:
        use()
    except ImportError as error:
        assert isinstance(error, fx.UsageError)
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)

    assert run.stdout.count("needs pyarrow; install it with: pip install 'ferrox[arrow]'") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["reports.csv"]


# -------------------------------------------------------------------------------------------------------- files


def test_the_bin_file_is_the_frames(reports, tmp_path):
    reports.write(tmp_path / "reports.bin")

    assert (tmp_path / "reports.bin").read_bytes() == FRAMES


def test_the_csv_file_has_words_and_numbers(reports, tmp_path):
    reports.write(tmp_path / "reports.csv")

    with (tmp_path / "reports.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    expectation = expected()
    for index, row in enumerate(rows):
        assert row == {
            name: "" if expectation[name][index] is None else str(expectation[name][index]) for name in COLUMNS
        }


def test_the_parquet_file_is_the_table(reports, tmp_path):
    reports.write(tmp_path / "reports.parquet")

    assert rows_of(pq.read_table(tmp_path / "reports.parquet").to_pydict()) == expected()
    assert rows_of(pl.read_parquet(tmp_path / "reports.parquet").to_dict(as_series=False)) == expected()


@pytest.mark.parametrize("suffix", [".bin", ".csv", ".parquet"])
@pytest.mark.parametrize("pieces", [1, 7, 20_000])
def test_a_file_is_the_same_in_whatever_pieces_it_was_written(tmp_path, suffix, pieces):
    rng = np.random.default_rng(7)
    array = np.zeros(20_000, REPORT_DTYPE)
    array["price"] = rng.integers(-1000, 1000, len(array))
    array["kind"] = rng.integers(1, 12, len(array))
    frames = array.tobytes()

    with fx.ReportWriter(tmp_path / f"whole{suffix}") as whole:
        whole.write(fx.Reports(frames))
    with fx.ReportWriter(tmp_path / f"pieces{suffix}") as writer:
        for piece in np.array_split(array, pieces):
            writer.write(piece.tobytes())

    assert writer.count == whole.count == len(array)
    assert writer.digest() == whole.digest() == fx.Reports(frames).digest()
    if suffix == ".parquet":
        one, other = (pq.read_table(tmp_path / f"{name}{suffix}") for name in ("whole", "pieces"))
        assert one.equals(other)
    else:
        assert (tmp_path / f"whole{suffix}").read_bytes() == (tmp_path / f"pieces{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".bin", ".csv"])
def test_a_long_file_takes_no_more_memory_than_a_short_one(tmp_path, suffix):
    frames = np.ones(10_000, REPORT_DTYPE).tobytes()

    def peak(times):
        tracemalloc.start()
        with fx.ReportWriter(tmp_path / f"reports{suffix}") as writer:
            for _ in range(times):
                writer.write(frames)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(60) < 1.5 * peak(6)


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "reports.csv"
    path.write_text("before")

    def fail_half_way():
        with fx.ReportWriter(path) as writer:
            writer.write(FRAMES)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(fx.UsageError, match=r"reports.txt: the suffix .* is one of: .bin, .csv, .parquet"):
        fx.ReportWriter(tmp_path / "reports.txt")
    with fx.ReportWriter(tmp_path / "reports.bin") as writer, pytest.raises(ValueError, match="whole frames"):
        writer.write(bytes(47))
    with pytest.raises(ValueError, match="closed"):
        writer.write(FRAMES)
    writer.close()
    writer.discard()


def test_a_pipe_is_written_in_place(tmp_path):
    (tmp_path / "out.csv").symlink_to("/dev/stdout")
    program = "import sys, ferrox as fx; fx.Reports(bytes(48)).write(sys.argv[1])"

    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "out.csv"], capture_output=True, text=True, check=True
    )

    assert run.stdout.splitlines() == [",".join(COLUMNS), "0,0,0,0,0,0,0,,,,0"]


# ------------------------------------------------------------------------------------------------------- to be shown


def test_few_reports_are_shown_as_lines_and_many_counted(reports):
    assert repr(reports[1:4]).splitlines() == [
        "<Reports 3 of sequence 2 to 3: 2 new, 1 trade>",
        "       2  new #1 10 @ 100",
        "       3  new #7/2 15 @ -101",
        "       3  trade #7/2 10 @ 100 with #1 leaves 5",
    ]
    many = fx.Reports(FRAMES * 1000)
    assert repr(many).splitlines()[-1].strip() == "... 7,990 more"
    assert "1,000 mass-canceled" in repr(many)
    assert repr(fx.Reports()) == "<Reports: none>"
    assert reports.counts() == {
        "new": 2, "trade": 1, "canceled": 1, "rejected": 1,
        "mass-canceled": 1, "instrument-defined": 1, "state-changed": 1,
    }  # fmt: skip


def test_a_notebook_shows_a_table(reports):
    assert reports._repr_html_().count("<tr>") == 9
    many = fx.Reports(FRAMES * 10)._repr_html_()
    assert many.count("<tr>") == 17
    assert "65 more" in many
    assert "self-trade" not in many


# --------------------------------------------------------------------------------------------------- commands


def test_new_orders_are_broadcast_from_columns_and_single_values():
    orders = fx.new_orders(["buy", "sell", "BUY"], 10, np.array([100, 101, 99]), account=7, time_in_force="ioc")

    assert orders.dtype == COMMAND_DTYPE
    assert orders["kind"].tolist() == [1, 1, 1]
    assert orders["side"].tolist() == [1, 2, 1]
    assert orders["order_id"].tolist() == [(7 << 40) + reference for reference in (1, 2, 3)]
    assert orders["price"].tolist() == [100, 101, 99]
    assert orders["quantity"].tolist() == [10, 10, 10]
    assert set(orders["time_in_force"].tolist()) == {int(TimeInForce.IOC)}
    assert set(orders["flags"].tolist()) == {0}


def test_new_orders_carry_their_flags():
    orders = fx.new_orders(
        np.array([1, 2]), 1, 5, order_id=[8, 9], post_only=[True, False], slide=True, self_trade="decrement"
    )

    assert orders["flags"].tolist() == [0x46, 0x44]
    assert orders["order_id"].tolist() == [8, 9]
    market = fx.new_orders("sell", [1, 2])
    assert (market["flags"].tolist(), market["time_in_force"].tolist()) == ([1, 1], [2, 2])


def test_new_orders_take_the_columns_of_a_frame():
    frame = pl.DataFrame({"side": ["sell", "buy"], "price": [5, 6], "quantity": [1, 2]})

    orders = fx.new_orders(frame["side"], frame["quantity"], frame["price"])

    assert (orders["side"].tolist(), orders["price"].tolist(), orders["quantity"].tolist()) == ([2, 1], [5, 6], [1, 2])
    enums = fx.new_orders([Side.SELL, Side.BUY], 1, 1)
    assert enums["side"].tolist() == [2, 1]


def test_cancels_join_with_new_orders():
    commands = np.concatenate([fx.new_orders("buy", 1, [5, 6]), fx.cancel_orders([1, 2])])

    assert commands["kind"].tolist() == [1, 1, 2, 2]
    assert commands["order_id"].tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: fx.new_orders("buy", 1, [99.5]), TypeError, "price is integers, this is float64"),
        (lambda: fx.new_orders("buy", -1, 5), ValueError, "quantity -1 does not fit its field"),
        (lambda: fx.new_orders("buy", 2**32, 5), ValueError, "quantity 4294967296 does not fit its field"),
        (lambda: fx.new_orders(["buy", "hold"], 1, 5), ValueError, "side 'hold' is none of: buy, sell"),
        (lambda: fx.new_orders("buy", [[1]], 5), ValueError, "quantity has one dimension"),
        (lambda: fx.new_orders(["buy", "sell"], [1, 2, 3], 5), ValueError, "broadcast"),
        (lambda: fx.cancel_orders([1.0]), TypeError, "order id is integers"),
        (lambda: term_of(Side, 1.5, "side"), TypeError, "side 1.5 is neither a name nor an integer"),
    ],
)
def test_columns_that_no_frame_can_hold_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


# ------------------------------------------------------------------------------------ accounts, sides, large numbers


@pytest.mark.parametrize("account", [3, np.int8(3), np.int32(3), np.uint8(3), np.array([3, 3], np.int16)])
def test_the_account_of_new_orders_is_kept_whatever_its_width(account):
    orders = fx.new_orders([1, 2], 1, 5, account=account)

    assert orders["order_id"].tolist() == [3 << 40 | 1, 3 << 40 | 2]
    assert fx.compose_order_id(np.int8(3), np.int8(1)) == 3 << 40 | 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"account": -1}, ValueError),
        ({"account": 2**23}, ValueError),
        ({"account": 1.0}, TypeError),
        ({"account": None}, TypeError),
        ({"self_trade": 8}, ValueError),
        ({"price": 2**70}, ValueError),
        ({"price": [2**63, -1]}, ValueError),
        ({"price": [2**70, None]}, TypeError),
        ({"self_trade": None}, TypeError),
        ({"self_trade": [["allow"]]}, ValueError),
    ],
)
def test_what_no_new_order_can_say_is_refused_by_name(options, error):
    with pytest.raises(error, match=next(iter(options)).replace("_", "-")):
        fx.new_orders(**({"side": 1, "quantity": 1, "price": 5} | options))


def test_integers_that_come_as_objects_are_integers():
    orders = fx.new_orders(1, 1, np.array([5, np.int8(6)], object), account=np.array([1, 2], object))

    assert orders[["order_id", "price"]].tolist() == [(1 << 40 | 1, 5), (2 << 40 | 2, 6)]
    assert len(fx.new_orders(1, 1, np.array([], object))) == 0


def test_a_scope_or_a_state_is_no_side():
    venue = fx.Venue(orders=16, instruments=2)
    commands: list[fx.Command] = [
        fx.DefineInstrument(2, 1, 0, 10, 1, 1),
        fx.MassCancel(2, 0, 1),
        fx.NewOrder(2, 1, 0, 1, 1, 5, 1),
    ]

    assert [report.kind for report in venue.apply(commands).where(side="sell")] == [fx.ReportKind.NEW]
