"""A run is its journal: write one, replay it, and hold the two against each other; then ask what if."""

import tempfile
from pathlib import Path

import numpy as np

import ferrox as fx

with tempfile.TemporaryDirectory() as directory:
    journal = Path(directory) / "flow"

    random = np.random.default_rng(7)
    with fx.Venue(journal=journal) as venue:
        venue.define(1, band=(0, 1_000))
        orders = fx.new_orders(
            random.integers(1, 3, 5_000), random.integers(1, 10, 5_000), random.integers(490, 511, 5_000)
        )
        reports = venue.apply(orders)
        written = venue.digest()
        last = venue.sequence
    print(f"wrote {last:,} commands: {sum(path.stat().st_size for path in journal.iterdir()):,} bytes")
    print(f"state digest  {written}")

    replayed = fx.Venue.load(journal, until=last)
    print(f"after replay  {replayed.digest()}")
    print("equal" if replayed.digest() == written else "DIFFERENT: this is a defect")

    # What if nobody had sold below 500 from command 2,001 on?  Load the past, and send the rest without them.
    branch = fx.Venue.load(journal, until=2_000)
    rest = orders[1_999:]
    kinder = branch.apply(rest[(rest["side"] == 1) | (rest["price"] >= 500)])
    before = reports[reports.sequence > 2_000].trades
    print(f"\nfrom command 2,001 on, {len(before):,} trades at a mean of {before.price.mean():.2f}")
    print(f"without the low sellers {len(kinder.trades):,} trades at a mean of {kinder.trades.price.mean():.2f}")
