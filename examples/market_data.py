"""One book at three depths: top of book (L1), quantity by level (L2), order by order (L3)."""

import ferrox as fx

venue = fx.Venue()
venue.define(1, band=(0, 10_000))

for account, price in enumerate((99, 98, 98, 97), start=1):
    venue.buy(10 * account, price, account=account)
for account, price in enumerate((101, 101, 103), start=5):
    venue.sell(10 * account, price, account=account)

print("L1, the touch:")
top = venue.top(1)
print(f"  {top}, spread {top.spread}, middle {top.middle}")

print("\nL2, the ladder, and its columns as numpy arrays:")
depth = venue.depth(1, levels=2)
print(depth)
print("  bid prices", depth.bids["price"], "and quantities", depth.bids["quantity"])

print("\nL3, every order in the order in which it will trade:")
print(venue.orders(1))

print("\nA seller of 40 lots takes the best levels, oldest orders first:")
sweep = venue.sell(40, 98, account=9)
for trade in sweep.trades:
    print(f"  {trade.quantity:3} at {trade.price} from account {fx.account_of(trade.contra_id)}")
print(f"  {venue.top(1)}")
