"""`ferrox halt`, `resume`, `kill-switch` and `limit`: what an operator does to a running service.

Each is a command in the journal, entered like any other, and answered by its report.
"""

from collections.abc import Sequence

import click

from ferrox.cli.output import examples, json_option, print_json
from ferrox.cli.service import as_object, config_option, operate, shown, taken
from ferrox.errors import UsageError
from ferrox.messages import Command, SetLimit, SetTradingState
from ferrox.terms import ACCOUNT_MAX, INSTRUMENT_MAX, NOTIONAL_MAX, Limit, TradingState

LIMITS = {limit.name.lower().replace("_", "-"): limit for limit in Limit if limit != Limit.KILL}

instruments_argument = click.argument(
    "instruments", metavar="INSTRUMENT...", nargs=-1, required=True, type=click.IntRange(1, INSTRUMENT_MAX)
)
account_option = click.option("--account", metavar="N", type=click.IntRange(1, ACCOUNT_MAX), help="For one account.")
instrument_option = click.option(
    "--instrument", metavar="N", type=click.IntRange(1, INSTRUMENT_MAX), help="For one instrument."
)


def carry_out(verb: str, config_file: str, commands: Sequence[Command], *, as_json: bool) -> int:
    """Send commands as the operator, show the answers, and return the exit status."""
    answers = operate(config_file, commands)
    if as_json:
        print_json({"verb": verb, "commands": [as_object(command, answer) for command, answer in answers]})
    else:
        for _, answer in answers:
            print("\n".join(shown(answer)))
    return 0 if all(taken(answer) for _, answer in answers) else 1


@click.command(epilog=examples("ferrox halt 1", "ferrox halt 1 2 3"))
@instruments_argument
@config_option
@json_option
def halt(instruments: tuple[int, ...], config_file: str, as_json: bool) -> int:
    """Halt instruments: cancels are taken, nothing else is.

    Exit status: 0 halted, 1 an instrument is not defined.
    """
    return carry_out(
        "halt", config_file, [SetTradingState(TradingState.HALTED, one) for one in instruments], as_json=as_json
    )


@click.command(epilog=examples("ferrox resume 1"))
@instruments_argument
@config_option
@json_option
def resume(instruments: tuple[int, ...], config_file: str, as_json: bool) -> int:
    """Open instruments again that were halted, closed or not open yet.

    Exit status: 0 open, 1 an instrument is not defined.
    """
    return carry_out(
        "resume", config_file, [SetTradingState(TradingState.OPEN, one) for one in instruments], as_json=as_json
    )


@click.command(
    "kill-switch",
    epilog=examples(
        "ferrox kill-switch --account 7",
        "ferrox kill-switch --account 7 --off",
        "ferrox kill-switch --venue",
    ),
)
@account_option
@instrument_option
@click.option("--venue", is_flag=True, help="For everything.")
@click.option("--off", is_flag=True, help="Take orders again.")
@config_option
@json_option
def kill_switch(
    account: int | None, instrument: int | None, venue: bool, off: bool, config_file: str, as_json: bool
) -> int:
    """Take no more orders of an account, in an instrument, or at all, and cancel those that rest.

    It acts on the next command that the gateway reads; cancels go on being taken. The switch is in the journal, so it
    stands after every restart, until --off.
    """
    if (account is not None) + (instrument is not None) + venue != 1:
        raise UsageError("a kill switch is for one thing: --account N, --instrument N or --venue")
    return carry_out(
        "kill-switch", config_file, [SetLimit(Limit.KILL, instrument or 0, account or 0, int(not off))], as_json=as_json
    )


@click.command(
    epilog=examples(
        "ferrox limit max-quantity 500 --account 7",
        "ferrox limit collar 50 --instrument 1",
        "ferrox limit order-rate 1000",
    )
)
@click.argument("name", type=click.Choice(list(LIMITS)))
@click.argument("value", type=click.IntRange(0, NOTIONAL_MAX))
@account_option
@instrument_option
@config_option
@json_option
def limit(name: str, value: int, account: int | None, instrument: int | None, config_file: str, as_json: bool) -> int:
    """Limit an account, an instrument (collar), or with neither all of them; 0 takes a limit back.

    What each limit means stands in specs/risk.md. It is in the journal, and stands until it is set anew.

    Exit status: 0 set, 1 the value or what it is for is not in order.
    """
    return carry_out(
        "limit", config_file, [SetLimit(LIMITS[name], instrument or 0, account or 0, value)], as_json=as_json
    )
