"""Whole arrays: 100,000 commands from numpy go in at once, and their reports come out as a frame.

Needs polars and pyarrow: pip install polars 'ferrox[arrow]'
"""

import time

import numpy as np
import polars as pl

import ferrox as fx

COUNT = 100_000
random = np.random.default_rng(7)

# A price that wanders, and orders around it, a third of them on the other side of it, so that they trade.
middle = 10_000 + np.cumsum(random.integers(-1, 2, COUNT)) // 8
side = random.integers(1, 3, COUNT)  # 1 buys, 2 sells
away = random.integers(-3, 7, COUNT)
orders = fx.new_orders(
    side,
    quantity=random.integers(1, 100, COUNT),
    price=np.where(side == 1, middle - away, middle + away),
    order_id=np.arange(1, COUNT + 1) + (random.integers(1, 6, COUNT) << 40),  # five accounts
)
# Every second order is canceled, if it still rests, 200 commands after it came.
cancels = fx.cancel_orders(orders["order_id"][::2])
places = np.concatenate([np.arange(COUNT), np.arange(0, COUNT, 2) + 200.5])
commands = np.concatenate([orders, cancels])[np.argsort(places, kind="stable")][:COUNT]

venue = fx.Venue()
venue.define(1, band=(0, 20_000))
start = time.perf_counter()
reports = venue.apply(commands)
seconds = time.perf_counter() - start
print(f"{COUNT:,} commands gave {len(reports):,} reports in {seconds:.2f} s: {reports.counts()}")

trades = reports.trades
print(f"volume {int(trades.quantity.sum()):,}, mean price {np.average(trades.price, weights=trades.quantity):.2f}")

frame = pl.DataFrame(reports)  # any reader of Arrow will do: pandas, pyarrow and duckdb as well
summary = (
    frame.filter(pl.col("kind") == "trade")
    .with_columns(account=pl.col("order_id") // 2**40)
    .group_by("account", pl.col("side").cast(pl.String))
    .agg(trades=pl.len(), volume=pl.col("quantity").sum(), mean_price=pl.col("price").mean().round(2))
    .sort("account", "side")
)
print("\nWhat each account took:")
with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
    print(summary)
print(venue.depth(1, levels=3))
