"""`ferrox send`: one command by hand."""

import click

from ferrox.cli.output import examples, json_option, print_json
from ferrox.cli.service import answer_of, as_object, config_option, connect, shown, taken
from ferrox.errors import UsageError
from ferrox.messages import unpack_command
from ferrox.service.config import read_config
from ferrox.text import TextError, parse_command
from ferrox.users import read_users

WITHOUT_ID = ("buy", "sell")


@click.command(
    epilog=examples(
        "ferrox send --user maker sell 10 @ 101",
        "ferrox send --user taker buy 4 market",
        "ferrox send --user maker cancel '#1'",
        "ferrox send --user maker mass-cancel account 0",
    ),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--user", metavar="NAME", help="Who sends it.  [default: the only trader, if there is one]")
@config_option
@json_option
def command(words: tuple[str, ...], user: str | None, config_file: str, as_json: bool) -> int:
    """Send one command to a running service, and show the answer.

    The command is in the words of specs/text.md, a new order without an id: its reference is chosen, and told.
    A cancel and a replace name an order by the reference that it was entered under, '#REFERENCE'.

    Exit status: 0 carried out, 1 rejected or refused.
    """
    config = read_config(config_file)
    users = read_users(config.users)
    if user is None:
        traders = [one.name for one in users.values() if one.account]
        if len(traders) != 1:
            raise UsageError(
                f"there are {len(traders)} traders; say who sends it with --user, one of {', '.join(users)}"
            )
        user = traders[0]
    if user not in users:
        raise UsageError(f"{config.users}: there is no user {user!r}; known are {', '.join(users)}")
    text = " ".join(words).split()
    if text[0] in WITHOUT_ID and len(text) > 1 and not text[1].startswith("#"):
        text.insert(1, "#0")
    try:
        wanted = unpack_command(parse_command(" ".join(text)))
    except (TextError, ValueError) as error:
        raise UsageError(f"{error}; see specs/text.md") from None
    with connect(config, user) as client:
        try:
            reference = client.send(wanted)
        except ValueError as error:
            raise UsageError(str(error)) from None
        answer = answer_of(client, reference)
    if as_json:
        print_json({"verb": "send", "user": user, "reference": reference, **as_object(wanted, answer)})
    else:
        print(f"reference #{reference}")
        print("\n".join(shown(answer)))
    return 0 if taken(answer) else 1
