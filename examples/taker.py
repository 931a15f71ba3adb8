"""A taker on a running service: now and then an IOC order, awaited with asyncio.

python examples/taker.py --users ferrox.users --orders 20
"""

import argparse
import asyncio
import random

from ferrox.client import AsyncClient
from ferrox.messages import Report
from ferrox.terms import Reason, ReportKind


async def take(client: AsyncClient, chance: random.Random, instrument: int) -> int:
    """Buy or sell a few lots at whatever price, and return how many traded."""
    side = chance.choice(["buy", "sell"])
    answer = await client.new(side, chance.randrange(1, 6), instrument=instrument)
    if not isinstance(answer, list):
        print(f"{side}: not taken, {answer}")
        return 0
    for report in answer:
        tell(side, report)
    return sum(report.quantity for report in answer if report.kind == ReportKind.TRADE)


def tell(side: str, report: Report) -> None:
    """Print what a report says, if it is worth a line."""
    if report.kind == ReportKind.TRADE:
        print(f"{side} {report.quantity} at {report.price}")
    elif report.kind == ReportKind.EXPIRED:
        print(f"{side}: nobody wanted the other {report.quantity}")
    elif report.kind == ReportKind.REJECTED:
        print(f"{side}: rejected, {Reason(report.reason).name}")


async def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=7001)
    arguments.add_argument("--users", default="ferrox.users", help="the file with the user's secret")
    arguments.add_argument("--user", default="taker")
    arguments.add_argument("--instrument", type=int, default=1)
    arguments.add_argument("--orders", type=int, default=20)
    arguments.add_argument("--pause", type=float, default=0.2, help="seconds between two orders")
    arguments.add_argument("--seed", type=int, default=7)
    chosen = arguments.parse_args()
    chance = random.Random(chosen.seed)

    async with AsyncClient(chosen.host, chosen.port, user=chosen.user, secret=chosen.users, backoff=0.5) as client:
        traded = 0
        for _ in range(chosen.orders):
            traded += await take(client, chance, chosen.instrument)
            await asyncio.sleep(chosen.pause)
        print(f"{chosen.orders} orders, {traded} lots traded")


if __name__ == "__main__":
    asyncio.run(main())
