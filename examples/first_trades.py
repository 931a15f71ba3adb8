"""The first trades: two orders meet, and one of them rests with what it has left."""

import ferrox as fx

venue = fx.Venue()
venue.define(1, tick=1, lot=1, band=(0, 10_000))

venue.sell(10, 100)
venue.sell(10, 102)
bid = venue.buy(15, 101)

for trade in bid.trades:
    print(f"traded {trade.quantity} at {trade.price}, the price of the order that was there first")
print(f"filled {bid.filled} at {bid.average_price}, leaves {bid.leaves} in the book")
print(venue.depth(1))
print(venue.buy(1, 20_000))
