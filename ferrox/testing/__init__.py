"""Tools to hold any engine against the specification.

    sessions     the examples of the specification, run against an engine
    laws         an auditor of report streams; needs no matching engine of ours
    strategies   order streams for Hypothesis, valid and hostile
    machine      a Hypothesis state machine over one engine

`strategies` and `machine` need Hypothesis (`pip install ferrox[testing]`).  Every module is imported when it is first
named, so that the others work without it.
"""

from importlib import import_module
from types import ModuleType
from typing import Final

MODULES: Final = ("laws", "machine", "sessions", "strategies", "workload")


def __getattr__(name: str) -> ModuleType:
    """Import a module of this package when it is first named."""
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the modules that can be named."""
    return sorted([*globals(), *MODULES])
