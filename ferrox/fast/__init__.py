"""The fast engine: the specification once more, compiled by mypyc, in a fixed memory layout.

The same source runs interpreted where there is no compiler: right, and about a hundred times slower.
"""

from typing import Final

from ferrox.fast import engine as _engine
from ferrox.fast.engine import FastEngine

COMPILED: Final = not _engine.__file__.endswith(".py")
"""Whether this is the compiled build."""

__all__ = ["COMPILED", "FastEngine"]
