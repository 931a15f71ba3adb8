"""What the verbs of the service share: finding it, asking it, and speaking to it as an operator."""

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import click

from ferrox.client import Client, LoginRefused, Refused, Unanswered
from ferrox.errors import UsageError
from ferrox.messages import Command, Report
from ferrox.service.config import Config, read_config, split
from ferrox.service.supervisor import ask
from ferrox.terms import Reason, Refusal
from ferrox.text import format_reason, format_report
from ferrox.users import read_users

OPERATOR_TRIES: Final = 50
TRY_SECONDS: Final = 0.05
ANSWER_SECONDS: Final = 10.0

config_option: Callable[..., Any] = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(),
    default="ferrox.toml",
    show_default=True,
    envvar="FERROX_CONFIG",
    help="The service's configuration.",
)


def status_of(config: Config) -> dict[str, Any]:
    """Return what a running service says of itself; raise `UsageError` when none runs."""
    return ask(config.control, {"ask": "status"})


def entry_of(config: Config) -> tuple[str, int]:
    """Return address and port where the running service takes orders."""
    port = status_of(config)["processes"]["gateway"]["port"]
    if not port:
        raise UsageError(f"{config.path}: the gateway does not listen yet; look with: ferrox status")
    return split(config.entry.listen)[0], int(port)


def connect(config: Config, user: str) -> Client:
    """Return a client of the running service, logged in as a user of its file."""
    host, port = entry_of(config)
    for attempt in range(OPERATOR_TRIES):
        try:
            return Client(host, port, user=user, secret=config.users)
        except LoginRefused as error:
            # Somebody else may be at the operator's desk for a moment.
            if error.reason != "U" or attempt == OPERATOR_TRIES - 1:
                raise
            time.sleep(TRY_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def operate(config_file: str, commands: Iterable[Command]) -> list[tuple[Command, list[Report] | Refused]]:
    """Send commands as the operator of a service; return the answer to each."""
    config = read_config(config_file)
    names = [user.name for user in read_users(config.users).values() if not user.account]
    if not names:
        raise UsageError(f'{config.users}: no user has role = "operator" and account = 0; add one, and restart')
    with connect(config, names[0]) as client:
        return [(command, answer_of(client, client.send(command))) for command in commands]


def answer_of(client: Client, reference: int) -> list[Report] | Refused:
    """Return the answer to a command; raise `UsageError` when there is none."""
    try:
        answer = client.wait(reference, ANSWER_SECONDS)
    except TimeoutError:
        raise UsageError("the service did not answer within 10 s; look with: ferrox status") from None
    if isinstance(answer, Unanswered):
        raise UsageError("the connection was lost before the answer came; look with: ferrox status")
    return answer


def shown(answer: list[Report] | Refused) -> list[str]:
    """Return an answer as lines of text."""
    if isinstance(answer, Refused):
        return [f"refused by the gateway: {refusal_word(answer.reason)}"]
    return [format_report(report) for report in answer]


def refusal_word(reason: int) -> str:
    """Return the word of a reason, be it the gateway's own or one that an engine would give."""
    if reason in set(Refusal):
        return Refusal(reason).name.lower().replace("_", "-")
    return format_reason(Reason(reason)) if reason in set(Reason) else f"reason-{reason}"


def taken(answer: list[Report] | Refused) -> bool:
    """Say whether a command was carried out."""
    return not isinstance(answer, Refused) and not any(report.reason and report.kind in (6, 7, 8) for report in answer)


def as_object(command: Command, answer: list[Report] | Refused) -> dict[str, Any]:
    """Return a command and its answer for JSON."""
    return {
        "command": type(command).__name__,
        "fields": command._asdict(),
        "taken": taken(answer),
        "answer": shown(answer),
    }
