"""Order entry from Python: a protocol without a socket, a client that blocks, and one for asyncio.

    from ferrox.client import Client

    with Client("127.0.0.1", 7001, user="maker", secret="ferrox.users") as client:
        reference = client.buy(10, 100)
        print(client.wait(reference))

`docs/client.md` is the guide, `specs/entry.md` the protocol.  Everything that comes in is one of the events below.
"""

from ferrox.client.aio import Answer, AsyncClient
from ferrox.client.errors import (
    ClientError,
    ConnectionLost,
    LoginRefused,
    NotConnected,
    ProtocolBroken,
    SessionChanged,
)
from ferrox.client.protocol import (
    Answered,
    EndOfSession,
    EntryProtocol,
    Event,
    LoginRejected,
    Sequenced,
    Unanswered,
)
from ferrox.client.sync import Client
from ferrox.entry import LoginAccepted, Refused

__all__ = [
    "Answer",
    "Answered",
    "AsyncClient",
    "Client",
    "ClientError",
    "ConnectionLost",
    "EndOfSession",
    "EntryProtocol",
    "Event",
    "LoginAccepted",
    "LoginRefused",
    "LoginRejected",
    "NotConnected",
    "ProtocolBroken",
    "Refused",
    "Sequenced",
    "SessionChanged",
    "Unanswered",
]
