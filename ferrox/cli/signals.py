"""Ctrl-C and SIGTERM as exceptions, which come again until somebody takes notice.

A handler's exception is raised wherever the program happens to be.  Where that is a destructor or a callback, Python
prints the exception and goes on, and the signal would be lost.  So it is raised once more a second later, unless the
way out has begun by then.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

AGAIN_SECONDS: Final = 1.0
NOTES: Final[dict[int, str]] = {signal.SIGINT: "interrupted", signal.SIGHUP: "hung up"}
TERMINATED: Final = 128 + signal.SIGTERM

_stopped_by = signal.SIGINT


def install() -> None:
    """Handle SIGINT, unless it is ignored here as in a background job, and SIGTERM, in the main thread."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _again)


def leaving() -> None:
    """Say that the exception has arrived, and that what follows is not to be interrupted by it."""
    signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def noted() -> Iterator[list[str]]:
    """Take down SIGINT, SIGTERM and SIGHUP while the block runs, for a loop that ends where all is whole.

    A second one does what it did before the block.  What is given is empty until one came, and then says which:
    "interrupted", "terminated" or "hung up".
    """
    notes: list[str] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def note(number: int, _frame: FrameType | None) -> None:
        notes.append(NOTES.get(number, "terminated"))
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, note)
    try:
        yield notes
    finally:
        restore()


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Remember which signal it was, and raise."""
    global _stopped_by  # noqa: PLW0603 - a process has one pair of signals
    _stopped_by = signal.Signals(number)
    _again(number, frame)


def _again(_number: int, _frame: FrameType | None) -> NoReturn:
    """Raise, and see to it that it is raised once more."""
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    if _stopped_by == signal.SIGTERM:
        raise SystemExit(TERMINATED)
    raise KeyboardInterrupt
