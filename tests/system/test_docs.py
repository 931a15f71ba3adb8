"""Every Python block and every console block of the README and the guides runs, and prints what it says it prints.

In a `console` block a line after `$ ` is a command; the lines below it are its output, where `...` stands for anything
and a line of only `...` for any number of lines.  A command whose output is left out must only succeed.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETUP = ("git ", "make ", "pip ", "cd ", "apt")  # what CI itself has done before this test can run


def blocks(document, language):
    return [body for name, body in FENCE.findall(document.read_text()) if name == language]


def with_blocks(language):
    return [pytest.param(path, id=path.name) for path in DOCUMENTS if path.exists() and blocks(path, language)]


def environment():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1"}


def run(command, folder, program=None):
    return subprocess.run(
        command, input=program, capture_output=True, text=True, cwd=folder, env=environment(), check=False
    )


@pytest.mark.parametrize("document", with_blocks("python"))
def test_the_python_of_a_document_runs_from_top_to_bottom(document, tmp_path):
    program = "\n".join(blocks(document, "python"))

    done = run([sys.executable, "-"], tmp_path, program)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", with_blocks("console"))
def test_the_commands_of_a_document_print_what_it_shows(document, tmp_path):
    for body in blocks(document, "console"):
        for command, expected in commands(body):
            if command.startswith(SETUP):
                continue
            done = run(["bash", "-c", command], tmp_path)

            shown = done.stdout + done.stderr
            assert expected or done.returncode == 0, f"$ {command}\n{shown}"
            assert matches(expected, shown), f"$ {command}\n--- shown\n{shown}\n--- documented\n{expected}"


def commands(body):
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        lines = part.split("\n")
        command = lines.pop(0)
        while command.endswith("\\"):
            command = command[:-1] + lines.pop(0)
        yield command, "\n".join(lines).strip("\n")


def matches(expected, shown):
    if not expected:
        return True
    lines = [re.escape(line.rstrip()).replace(r"\.\.\.", ".*") for line in expected.split("\n")]
    pattern = "".join("(?:.*\n)*?" if line == ".*" else rf"{line}\s*\n" for line in lines)
    return re.fullmatch(pattern, shown.strip("\n") + "\n") is not None


def test_a_documented_line_that_is_not_printed_is_noticed():
    assert matches("a ... c\n...\nz", "a b c\nx\ny\nz\n")
    assert not matches("a ... c\nz", "a b c\nx\nz\n")
