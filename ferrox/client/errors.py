"""What a client raises: what was found on the connection, where, and what to do."""

from typing import Final

from ferrox.errors import FerroxError


class ClientError(FerroxError):
    """Any failure between a client and the service."""


class NotConnected(ClientError):
    """A command was given while nobody is logged in: it was not kept, and is not sent."""


class ConnectionLost(ClientError):
    """The connection ended or fell silent; commands that were not answered are kept for the next one."""


class ProtocolBroken(ClientError):
    """The other side sent what specs/entry.md does not allow at that place."""


class LoginRefused(ClientError):
    """The gateway rejected the login (ENTRY-4)."""

    def __init__(self, reason: str) -> None:
        """Name the letter of the reason, what it means and what to do."""
        self.reason = reason
        super().__init__(
            f"the login was rejected, {reason}: {LOGIN_REASONS.get(reason, 'a reason this version does not know')}"
        )


class SessionChanged(LoginRefused):
    """The session that was asked for is not the current one: reports that were sent may have been lost (FEED-8)."""


LOGIN_REASONS: Final = {
    "A": "user or secret are not right; compare them with the users file of the service",
    "S": "the session is not the current one, so reports may have been lost; find out what became of your orders, "
    "and reconnect with fresh=True",
    "U": "the user is logged in on another connection; close that one, or wait until the service finds it lost",
    "N": "the reports from this number on are not kept any more, or are not there yet; reconnect with fresh=True, "
    "and find out what became of your orders",
    "T": "too many failures from this address; wait ten seconds",
    "F": "the fields of the login are not in order; client and service are of different versions",
}
"""What each letter of a login that was rejected means, and what to do (ENTRY-4)."""


def login_refused(reason: str) -> LoginRefused:
    """Return the error of a login that was rejected."""
    return SessionChanged(reason) if reason == "S" else LoginRefused(reason)
