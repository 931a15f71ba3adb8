"""The arrows of the architecture, read from the imports themselves."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ferrox"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A stage knows the words and the bytes, never its neighbour: what each may import from ferrox, by prefix.
WORDS = ("ferrox.terms", "ferrox.messages", "ferrox.errors")
ALLOWED = {
    "ferrox.terms": (),
    "ferrox.errors": (),
    "ferrox.messages": ("ferrox.terms",),
    "ferrox.decode": WORDS,
    "ferrox.engine": ("ferrox.terms", "ferrox.errors", "ferrox.reference", "ferrox.fast"),
    "ferrox.state": (*WORDS, "ferrox.decode"),
    "ferrox.text": WORDS,
    "ferrox.files": ("ferrox.errors",),
    "ferrox.snapshot": ("ferrox.errors", "ferrox.files", "ferrox.state"),
    "ferrox.journal": (*WORDS, "ferrox.engine", "ferrox.fast", "ferrox.files", "ferrox.snapshot", "ferrox.journal"),
    "ferrox.depth": (*WORDS, "ferrox.state", "ferrox.text"),
    "ferrox.columns": (*WORDS, "ferrox.text"),
    "ferrox.reference": (*WORDS, "ferrox.decode", "ferrox.state", "ferrox.engine", "ferrox.reference"),
    "ferrox.fast": ("ferrox.errors", "ferrox.fast"),
    "ferrox.entry": ("ferrox.errors",),
    "ferrox.mold": ("ferrox.errors", "ferrox.lanes.packets"),
    "ferrox.shared": ("ferrox.errors",),
    "ferrox.lanes": ("ferrox.errors", "ferrox.fast", "ferrox.lanes", "ferrox.shared"),
    "ferrox.users": ("ferrox.entry", "ferrox.errors", "ferrox.terms"),
    "ferrox.client": (
        *WORDS,
        "ferrox.client",
        "ferrox.depth",
        "ferrox.entry",
        "ferrox.lanes.packets",
        "ferrox.mold",
        "ferrox.state",
        "ferrox.text",
        "ferrox.users",
    ),
}


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""


def inside(name, prefix):
    return name == prefix or name.startswith(f"{prefix}.")


@pytest.mark.parametrize("stage", ALLOWED)
def test_a_stage_imports_only_what_stands_before_it(stage):
    found = {
        (name_of(path), imported)
        for path in MODULES
        if inside(name_of(path), stage)
        for imported in imports_of(path)
        if inside(imported, "ferrox")
    }

    assert not {pair for pair in found if not any(inside(pair[1], allowed) for allowed in ALLOWED[stage])}


def test_the_two_engines_never_import_each_other():
    for path in MODULES:
        if inside(name_of(path), "ferrox.reference"):
            assert not any(inside(imported, "ferrox.fast") for imported in imports_of(path)), path
        if inside(name_of(path), "ferrox.fast"):
            assert not any(inside(imported, "ferrox.reference") for imported in imports_of(path)), path


@pytest.mark.parametrize("heavy", ["pyarrow", "rich", "click", "attrs", "ferrox.fast", "ferrox.journal"])
def test_importing_the_client_brings_in_nothing_of_the_engine(heavy):
    # Named by its parts, because importing ferrox itself brings in the venue.
    program = (
        "import sys, types; package = types.ModuleType('ferrox'); package.__path__ = [sys.argv[1]]; "
        f"sys.modules['ferrox'] = package; import ferrox.client; sys.exit({heavy!r} in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program, str(PACKAGE)], check=False).returncode == 0


@pytest.mark.parametrize("heavy", ["pyarrow", "rich", "click", "hypothesis", "polars", "pandas"])
def test_importing_ferrox_brings_in_nothing_heavy(heavy):
    program = f"import sys, ferrox; sys.exit({heavy!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
