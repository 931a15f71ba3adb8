"""A market maker on a running service: one bid and one ask around a price, moved away from whoever trades with it.

    python examples/market_maker.py --users ferrox.users

Ctrl-C ends it.  It holds two orders and nothing else.  When the connection is lost, the gateway cancels
them (cancel on disconnect), and the reports that were missed come after the reconnect, so that what this script
believes is what the venue says.
"""

import argparse
import time
from contextlib import suppress

from ferrox.client import Answered, Client, ConnectionLost, Sequenced
from ferrox.messages import Report
from ferrox.terms import REFERENCE_MAX, ReportKind, Side

SIZE, SPREAD = 10, 4


class Maker:
    """What the maker believes: its two orders, its position, and where it thinks the price is."""

    def __init__(self, client: Client, middle: int, instrument: int) -> None:
        self.client, self.middle, self.instrument = client, middle, instrument
        self.leaves: dict[int, int] = {}  # of our orders, by reference
        self.position = 0

    def quote(self) -> None:
        """Take out what is left of the old quotes, and enter new ones; nothing waits for an answer."""
        for reference in self.leaves:
            self.client.cancel(reference, instrument=self.instrument)
        bid, ask = self.middle - SPREAD // 2, self.middle + SPREAD // 2
        self.leaves = {
            self.client.buy(SIZE, bid, instrument=self.instrument, post_only=True): SIZE,
            self.client.sell(SIZE, ask, instrument=self.instrument, post_only=True): SIZE,
        }
        print(f"quoting {bid} / {ask}, position {self.position}", flush=True)

    def hear(self, report: Report) -> bool:
        """Take in one report; say whether it calls for new quotes."""
        if report.kind == ReportKind.TRADE:  # ours is the maker's side, and the report names the taker's
            bought = report.side == Side.SELL
            self.position += report.quantity if bought else -report.quantity
            self.middle += -1 if bought else 1
            self.leaves.pop(report.contra_id & REFERENCE_MAX, None)
            print(f"{'bought' if bought else 'sold'} {report.quantity} at {report.price}", flush=True)
            return True
        if report.kind == ReportKind.REJECTED:
            print(f"rejected: {report}", flush=True)
        return False


def work(client: Client, maker: Maker) -> None:
    """Hear all that has come, then quote again if it calls for that, until the connection is lost."""
    while True:
        moved = False
        for event in client.events(timeout=0.1):
            if isinstance(event, Sequenced):
                moved |= maker.hear(event.report)
            elif isinstance(event, Answered) and not event.accepted:
                maker.hear(event.reports[0])
        if moved:
            maker.quote()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=7001)
    arguments.add_argument("--users", default="ferrox.users", help="the file with the user's secret")
    arguments.add_argument("--user", default="maker")
    arguments.add_argument("--instrument", type=int, default=1)
    arguments.add_argument("--middle", type=int, default=100, help="where to begin, in ticks")
    chosen = arguments.parse_args()

    with Client(chosen.host, chosen.port, user=chosen.user, secret=chosen.users, cancel_on_disconnect=True) as client:
        maker = Maker(client, chosen.middle, chosen.instrument)
        maker.quote()
        with suppress(KeyboardInterrupt):
            while True:
                try:
                    work(client, maker)
                except ConnectionLost as lost:
                    print(lost, flush=True)
                    time.sleep(1)
                    client.reconnect(resend=False)
                    maker.quote()
        client.wait(client.mass_cancel())
        print(f"done, position {maker.position}")


if __name__ == "__main__":
    main()
