"""The command line: one module a verb, and all that can go wrong ends here, in one line and an exit status.

    0  fine                               2  the call cannot be carried out as it stands (usage, files, disk)
    1  a difference was found             3  the input is corrupt

A verb returns its status and raises for the rest; `run` turns what was raised into one line on stderr and, with
`--json`, into the one JSON object on stdout.  As everywhere on Unix, an interrupt gives 130, a closed pipe 141 in
silence.  A defect of ours keeps its traceback, because whoever reports it will be asked for it, and gives 70.

click parses and helps; its own `main` is left alone, because it answers a closed pipe with 1, which here means that a
difference was found.  Verbs are imported when they are called, so that `ferrox --help` is quick.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Final, NoReturn

import click

from ferrox.cli.output import JSON_OPTION, examples, print_error, print_json
from ferrox.cli.signals import TERMINATED, install, leaving
from ferrox.errors import CorruptInput, DiskLow, FerroxError, JournalFailed, NotDeterministic

DIFFERENT: Final = 1
USAGE: Final = 2
CORRUPT: Final = 3
DISK: Final = 4
DEFECT: Final = 70
INTERRUPTED: Final = 128 + signal.SIGINT
CLOSED_PIPE: Final = 128 + signal.SIGPIPE

VERBS: Final = {
    "archive": ("archive", "Put away the segments that sound snapshots stand for."),
    "demo": ("demo", "Run a simulated session and prove its replay equal."),
    "halt": ("operate:halt", "Halt instruments of a running service."),
    "import": ("import_orders", "Turn a CSV of orders into a journal."),
    "init": ("init", "Write a service's configuration and its users."),
    "inspect": ("inspect", "Show a journal, a segment or a snapshot to people."),
    "kill-switch": ("operate:kill_switch", "Take no more orders, and cancel those that rest."),
    "limit": ("operate:limit", "Limit accounts and instruments of a running service."),
    "pipe": ("pipe", "Be an engine: commands on stdin, reports on stdout."),
    "rehearse": ("rehearse", "Run a service, kill a part of it, prove nothing lost."),
    "replay": ("replay", "Tell an engine a journal again."),
    "resume": ("operate:resume", "Open instruments of a running service again."),
    "salvage": ("salvage", "Keep what is sound of a damaged journal, in a new one."),
    "send": ("send", "Send one command to a running service."),
    "serve": ("serve", "Run the matching service."),
    "shadow": ("shadow", "Follow a live journal: write its snapshots, check its engine."),
    "simulate": ("simulate", "Write a seeded, realistic order flow as a journal."),
    "status": ("status", "Show how a running service is."),
    "stop": ("status:stop", "Stop a running service in order."),
    "verify": ("verify", "Check every byte of a journal, and both engines on it."),
    "watch": ("watch", "Watch a running service: book, trades, rates, processes."),
}
"""Each verb, its module (and what it is called there, if not `command`), and what the list of verbs says of it."""


class Verbs(click.Group):
    """The verbs, each imported when it is called for."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all verbs."""
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Return a verb by its name, or None."""
        if name not in VERBS:
            return None
        module, _, attribute = VERBS[name][0].partition(":")
        command: click.Command = getattr(import_module(f"ferrox.cli.{module}"), attribute or "command")
        return command

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that is called; suggest one where there is none of that name."""
        name = arguments[0]
        if name not in VERBS:
            close = get_close_matches(name, VERBS)
            suggestion = f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(VERBS)}."
            context.fail(f"There is no verb {name!r}; {suggestion}")
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, line) for name, (_, line) in VERBS.items()])


def show_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    """Print what is running: version, whether the fast engine is compiled, CPython, librt."""
    if not asked or context.resilient_parsing:
        return
    from ferrox.cli.engines import describe_build

    build = describe_build()
    if JSON_OPTION in sys.argv:
        print_json(build)
    else:
        click.echo(
            f"ferrox {build['version']} · fast engine {build['fast_engine']} · CPython {build['python']} · "
            f"librt {build['librt']}"
        )
    context.exit()


@click.group(
    cls=Verbs,
    no_args_is_help=False,
    subcommand_metavar="VERB [ARGUMENTS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "ferrox demo                                            see all of it at work",
        "ferrox simulate --seed 7 --commands 100000 --out flow  write an order flow",
        "ferrox replay flow                                     run it through an engine",
        "ferrox verify flow                                     hold both engines against each other",
    ),
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the build."
)
def ferrox() -> None:
    """Match orders, deterministically: equal journals give equal bytes.

    Every verb has --help with examples, and --json for one JSON object on stdout. Data goes to stdout, everything else
    to stderr. Exit status: 0 fine, 1 a difference was found, 2 usage, 3 corrupt input,
    4 the disk of a journal failed or is full.
    """


def main() -> NoReturn:
    """Run the command line of this process, and exit with its status."""
    prepare_streams()
    install()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status; everything that can be raised ends here."""
    try:
        try:
            status = invoke(arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except (KeyboardInterrupt, click.Abort):
            leaving()
            return fail(arguments, "interrupted", INTERRUPTED)
        except SystemExit as left:
            leaving()
            return fail(arguments, "terminated", TERMINATED) if left.code == TERMINATED else int(left.code or 0)
        except click.ClickException as error:
            return fail(arguments, usage_of(error), USAGE)
        except CorruptInput as error:
            return fail(arguments, str(error), CORRUPT, getattr(error, "lines", ()))
        except (JournalFailed, DiskLow) as error:
            return fail(arguments, str(error), DISK)
        except NotDeterministic as error:
            return fail(arguments, str(error), DIFFERENT)
        except FerroxError as error:
            return fail(arguments, str(error), USAGE)
        except OSError as error:
            if error.filename is None:  # only standard output has no name; see `report_sink` for files
                raise
            return fail(arguments, reason_of(error), USAGE)
        except MemoryError:
            return fail(arguments, "there is not enough memory for this", USAGE)
    except BrokenPipeError:
        silence(sys.stdout.fileno())
        return CLOSED_PIPE
    except OSError as error:
        silence(sys.stdout.fileno())
        print_error(f"standard output: {reason_of(error)}")
        return USAGE
    except Exception:  # noqa: BLE001 - a defect of ours, and the last chance to say so
        import traceback

        traceback.print_exc()
        return fail(arguments, "this is a defect of Ferrox; please report it with the lines above", DEFECT)
    return status


def invoke(arguments: Sequence[str]) -> int:
    """Parse a command line and carry it out; return the status that its verb gives."""
    if "_FERROX_COMPLETE" in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(ferrox, {}, "ferrox", "_FERROX_COMPLETE", os.environ["_FERROX_COMPLETE"])
    try:
        with ferrox.make_context("ferrox", list(arguments)) as context:
            return int(ferrox.invoke(context) or 0)
    except click.exceptions.Exit as left:
        return left.exit_code


def fail(arguments: Sequence[str], message: str, status: int, lines: Sequence[str] = ()) -> int:
    """Tell an error on stderr, and on stdout as well where one JSON object was asked for; return the status.

    `lines` are the parts of a message that tells several errors.
    """
    for line in lines or [message]:
        print_error(line)
    if JSON_OPTION in arguments:
        verb = next((argument for argument in arguments if argument in VERBS), None)
        print_json({"verb": verb, "error": message, "exit_status": status})
    with suppress(OSError):
        sys.stderr.flush()
    sys.stdout.flush()
    return status


def usage_of(error: click.ClickException) -> str:
    """Return click's words as one line that says where the help is."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    message = " ".join(error.format_message().split())
    return f"{message} Try: {context.command_path} --help" if context else message


def reason_of(error: OSError) -> str:
    """Return the system's words for an error, with the file it met."""
    reason = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, (str, bytes)) else reason


def silence(descriptor: int) -> None:
    """Let what is still buffered go nowhere, so that the interpreter's last flush says nothing."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def prepare_streams() -> None:
    """Give the three standard streams a descriptor each, and let no character be unprintable.

    A stream that the caller closed gets one that fails when it is used, so that no file of ours takes its number; only
    what is said on stderr may get lost.
    """
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # This takes the lowest free number, which is this one; who is started from here needs it as well.
            os.set_inheritable(os.open(os.devnull, mode), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # both are text over a descriptor
