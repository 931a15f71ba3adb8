"""Queue position: how a resting order moves up, what a replace costs it, and how long it waits for its fill."""

import numpy as np

import ferrox as fx

MINE = 9  # the account whose order is followed

venue = fx.Venue()
venue.define(1, band=(0, 1_000))
random = np.random.default_rng(7)

# Orders before ours at the best bid, and a seller to rest opposite.
venue.sell(1_000, 101)
crowd = [venue.buy(int(random.integers(5, 30)), 100, account=1).order_id for _ in range(12)]
mine = venue.buy(20, 100, account=MINE)
print(f"entered at {venue.queue_position(mine.order_id)}")

print("\n  command  orders ahead  lots ahead  leaves")
while (order := venue.order(mine.order_id)) is not None:
    position = venue.queue_position(mine.order_id)
    print(f"  {venue.sequence:7}  {position.orders_ahead:12}  {position.quantity_ahead:10}  {order.leaves:6}")
    happening = random.random()
    if happening < 0.5:
        venue.sell(int(random.integers(5, 40)), account=2)  # a market order takes from the front
    elif happening < 0.8 and crowd:
        venue.cancel(crowd.pop(int(random.integers(len(crowd)))))  # someone ahead leaves, or had traded already
    else:
        venue.buy(int(random.integers(5, 30)), 100, account=1)  # someone new stands behind
print(f"filled by command {venue.sequence}")

# What a replace costs: only a smaller quantity at the same price keeps the place (RPL-4, RPL-5).
first, second = venue.buy(10, 99, account=MINE), venue.buy(10, 99, account=1)
print("\na smaller total keeps the place: ", venue.replace(first.order_id, quantity=8))
print("a larger one goes to the back:   ", venue.replace(first.order_id, quantity=12))
position = venue.queue_position(first.order_id)
print(f"now {position.orders_ahead} order with {position.quantity_ahead} lots stands ahead of it")
