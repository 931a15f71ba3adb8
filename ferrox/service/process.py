"""A process of the service, from its first line to its exit status.

A child knows its role, its configuration and the numbers of what it shares.  It ends when it is told to (SIGTERM), or
when its supervisor is gone; an interrupt from a terminal is the supervisor's to answer.
"""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from ferrox.errors import CorruptInput, DiskLow, FerroxError, JournalFailed, NotDeterministic, UsageError
from ferrox.service.config import Config, read_config
from ferrox.service.links import Links
from ferrox.shared import SharedCorrupt

PR_SET_PDEATHSIG: Final = 1
PROGRAM: Final = "from ferrox.service.process import main; main()"

# Exit statuses, as those of the command line.
DIFFERENT: Final = 1
USAGE: Final = 2
CORRUPT: Final = 3
DISK: Final = 4
DEFECT: Final = 70
AGAIN: Final = 75
"""Of a process that is to be started again, because another one moved meanwhile."""


class Teller:
    """Writes what happens, a line each, to standard error."""

    def __init__(self, process: str, form: str) -> None:
        self.process, self.form = process, form

    def __call__(self, event: str, **fields: Any) -> None:
        """Write an event and what belongs to it."""
        now = time.time()
        if self.form == "json":
            line = json.dumps({"time": round(now, 6), "process": self.process, "event": event, **fields})
        else:
            stamp = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d}"
            words = " ".join(f"{name}={value}" for name, value in fields.items())
            line = f"{stamp} {self.process:<13} {event} {words}".rstrip()
        try:
            os.write(2, line.encode(errors="backslashreplace") + b"\n")
        except OSError:
            return  # nobody reads it; that is no reason to stop


def main() -> None:
    """Be the process that the command line names: role, configuration, links, supervisor."""
    role, path, links, parent = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor's to answer
    notes: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        notes.append(number)

    signal.signal(signal.SIGTERM, stop)
    end_with(int(parent), signal.SIGTERM)
    config = read_config(path)
    tell = Teller(role, config.log.format)
    sys.exit(guarded(role, config, Links.attach(links), lambda: bool(notes), tell))


def end_with(parent: int, number: int) -> None:
    """Have the kernel send this process a signal when its parent is gone; end here when it is gone already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def guarded(role: str, config: Config, links: Links, stopping: Callable[[], bool], tell: Teller) -> int:
    """Run a role, and return the exit status that tells why it ended."""
    try:
        if role != "matcher":
            pin(config, role)
        run(role, config, links, stopping, tell)
    except SystemExit as left:
        return int(left.code or 0)
    except CorruptInput as error:
        return _failed(tell, error, CORRUPT)
    except (JournalFailed, DiskLow) as error:
        return _failed(tell, error, DISK)
    except NotDeterministic as error:
        return _failed(tell, error, DIFFERENT)
    except SharedCorrupt as error:
        return _failed(tell, error, DEFECT)
    except (UsageError, FerroxError, OSError) as error:
        return _failed(tell, error, USAGE)
    except Exception:  # noqa: BLE001 - a defect of ours, and the last chance to say so
        tell("defect", error=traceback.format_exc())
        return DEFECT
    return 0


def _failed(tell: Teller, error: Exception, status: int) -> int:
    """Tell why a process ends, and return its status."""
    tell("failed", error=str(error), exit_status=status)
    return status


def pin(config: Config, role: str) -> None:
    """Keep this process to the core that the configuration has for a role, if it has one."""
    core = config.processes.pin.get(role)
    if core is None:
        return
    try:
        os.sched_setaffinity(0, {core})
    except OSError:
        cores = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise UsageError(f"[processes] pin: {role} = {core}: cores that may be used here are {cores}") from None


def run(role: str, config: Config, links: Links, stopping: Callable[[], bool], tell: Teller) -> None:
    """Run a role until it is to stop; each imports only what it needs."""
    if role == "matcher":
        from ferrox.service.matcher import Matcher

        matcher = Matcher(config, links, stopping, tell)
        cores = os.sched_getaffinity(0)
        pin(config, "syncer")  # which is started on the way, and stays where this process is then
        matcher.begin()
        os.sched_setaffinity(0, cores)
        pin(config, "matcher")
        matcher.run()
    elif role == "gateway":
        from ferrox.service.gateway import Gateway

        gateway = Gateway(config, links, stopping, tell)
        gateway.begin()
        gateway.run()
    elif role == "shadow":
        from ferrox.service.shadowing import Shadowing

        Shadowing(config, links, stopping, tell).run()
    else:
        from ferrox.service.publishing import publish, retransmit

        {"publisher": publish, "retransmitter": retransmit}[role](config, links, stopping, tell)
