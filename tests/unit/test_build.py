"""The build under test is the one that was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ferrox
from ferrox import fast
from ferrox.lanes import ring

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.skipif("FERROX_EXPECT" not in os.environ, reason="FERROX_EXPECT=pure|compiled says which build is meant")
def test_the_build_under_test_is_the_one_that_was_asked_for():
    expected = os.environ["FERROX_EXPECT"]
    imported = Path(ferrox.__file__).parent

    assert expected in ("pure", "compiled")
    assert fast.COMPILED == (expected == "compiled")
    assert (imported == CHECKOUT / "ferrox") == (expected == "pure")


def test_what_a_test_starts_is_the_build_under_test():
    program = "import ferrox.lanes.ring; print(ferrox.lanes.ring.__file__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)

    assert done.stdout.strip() == ring.__file__


def test_the_checkout_holds_no_compiled_module():
    assert not list((CHECKOUT / "ferrox").rglob("*.so"))
