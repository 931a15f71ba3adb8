"""The compiled half of the build; everything else stands in pyproject.toml.

`ferrox.fast` and `ferrox.lanes` are one mypyc unit.  Where it cannot be compiled the install goes on without it, right
but slow, unless FERROX_COMPILE=1 says that this is an error; FERROX_PURE=1 does not try.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

# The functions of the unit are small and many: the compiler may inline them into each other more than it would by
# itself (12 % fewer instructions a message), and nobody replaces them at load time.
INLINING = [
    "-fno-semantic-interposition",
    "-fvisibility=hidden",
    "--param=max-inline-insns-auto=1000",
    "--param=max-inline-insns-single=1000",
    "--param=inline-unit-growth=1000",
    "--param=large-function-growth=20000",
    "--param=large-stack-frame-growth=50000",
    "--param=early-inlining-insns=60",
]


def compiled() -> list[Extension]:
    """Return the extension of the fast engine, or nothing when it is not wanted or mypyc is not there."""
    required = os.environ.get("FERROX_COMPILE") == "1"
    if os.environ.get("FERROX_PURE") == "1":
        return []
    try:
        from mypyc.build import mypycify
    except ImportError as missing:
        if required:
            raise SystemExit(f"FERROX_COMPILE=1 asks for the compiled build; mypyc is not there: {missing}") from None
        print("ferrox: mypyc is not there; installing the pure build, about 100 times slower", file=sys.stderr)
        return []
    # The package's own file stays Python: it says whether the modules behind it are compiled.
    modules = sorted(
        str(path)
        for part in ("fast", "lanes")
        for path in Path("ferrox", part).glob("*.py")
        if path.name != "__init__.py"
    )
    # What the unit imports is not there in an isolated build, and is checked elsewhere: only the unit is of interest.
    flags = ["--follow-imports=silent", "--ignore-missing-imports"]
    try:
        extensions = mypycify([*flags, *modules], opt_level="3", debug_level="0", group_name="ferrox_fast")
    except SystemExit:
        if required:
            raise
        print("ferrox: mypyc failed; installing the pure build, about 100 times slower", file=sys.stderr)
        return []
    for extension in extensions:
        extension.optional = not required
        extension.extra_compile_args += INLINING
    return list(extensions)


setup(ext_modules=compiled())
