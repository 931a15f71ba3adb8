"""The build under test is the one that was asked for."""

import os
from pathlib import Path

import pytest

import ferrox
from ferrox import fast

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.skipif("FERROX_EXPECT" not in os.environ, reason="FERROX_EXPECT=pure|compiled says which build is meant")
def test_the_build_under_test_is_the_one_that_was_asked_for():
    expected = os.environ["FERROX_EXPECT"]
    imported = Path(ferrox.__file__).parent

    assert expected in ("pure", "compiled")
    assert fast.COMPILED == (expected == "compiled")
    assert (imported == CHECKOUT / "ferrox") == (expected == "pure")


def test_the_checkout_holds_no_compiled_module():
    assert not list((CHECKOUT / "ferrox").rglob("*.so"))
