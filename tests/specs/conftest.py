"""Every engine, by name, with the small capacities that make an interpreted engine quick to create."""

from collections.abc import Callable

import pytest

from ferrox.engine import ENGINES, Capacity, Engine, make_engine
from ferrox.testing.sessions import read_session, run_session

BUILT = ENGINES


@pytest.fixture(params=BUILT)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(engine_name: str) -> Callable[..., Engine]:
    """Make a fresh engine under test."""

    def fresh(orders: int = 4096, instruments: int = 64) -> Engine:
        return make_engine(engine_name, Capacity(orders, instruments))

    return fresh


@pytest.fixture(scope="session")
def make_all() -> Callable[..., list[Engine]]:
    """Make one fresh engine of each kind."""

    def fresh(orders: int = 4096, instruments: int = 64) -> list[Engine]:
        return [make_engine(name, Capacity(orders, instruments)) for name in BUILT]

    return fresh


@pytest.fixture
def play(make: Callable[..., Engine]) -> Callable[..., Engine]:
    """Play the lines of a session to a fresh engine, compare every report, and return the engine."""

    def run(lines: str, **capacity: int) -> Engine:
        return run_session(read_session(lines), make(**capacity))

    return run
