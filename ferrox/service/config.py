"""What a service is told: `ferrox.toml`, read strictly.

Every key has a default, and the file that `ferrox init` writes says each of them with its reason.  A key that is not
known is an error that names the file, the key and the nearest one that is: a limit that was misspelt is no limit.
"""

import ipaddress
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import attrs
from attrs import field, frozen

from ferrox.errors import UsageError
from ferrox.journal import Durability
from ferrox.journal.layout import SEGMENT_RECORDS, SEGMENT_RECORDS_MAX
from ferrox.journal.storage import BACKENDS
from ferrox.service.board import ROLES
from ferrox.terms import (
    INSTRUMENT_CAPACITY,
    INSTRUMENT_CAPACITY_MAX,
    INSTRUMENT_MAX,
    LOT_MAX,
    ORDER_CAPACITY,
    ORDER_CAPACITY_MAX,
    PRICE_MAX,
    QUANTITY_MAX,
    TICK_MAX,
    TradingState,
)

STATES: Final = {state.name.lower().replace("_", "-"): int(state) for state in TradingState}
MONEY_MAX: Final = 2**62 - 1
PINNED: Final = (*ROLES[1:], "syncer")
"""Who may have a core of its own."""
CORE_MAX: Final = 1_023
"""Cores that the affinity of a process can name, by default on Linux."""


def _whole(low: int, high: int) -> Any:
    """Return a check that a value is a whole number of a range."""

    def check(_owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UsageError(f"{attribute.name}: expected a whole number from {low} to {high}, found {value!r}")

    return check


def _one_of(*choices: str) -> Any:
    """Return a check that a value is one of some words."""

    def check(_owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if value not in choices:
            raise UsageError(f"{attribute.name}: expected one of {', '.join(choices)}, found {value!r}")

    return check


def _power_of_two(low: int, high: int) -> Any:
    """Return a check that a value is a power of two of a range."""

    def check(_owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and low <= value <= high and value & (value - 1) == 0):  # type: ignore[operator]
            raise UsageError(f"{attribute.name}: expected a power of two from {low} to {high}, found {value!r}")

    return check


def _text(_owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check that a value is text, and not empty."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError(f"{attribute.name}: expected text, found {value!r}")


def _truth(_owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check that a value is true or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{attribute.name}: expected true or false, found {value!r}")


def _endpoint(_owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check that a value is ADDRESS:PORT."""
    try:
        split(str(value))
    except ValueError:
        raise UsageError(f"{attribute.name}: expected ADDRESS:PORT with an IPv4 address, found {value!r}") from None


def _endpoint_or_none(owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check that a value is ADDRESS:PORT, or empty."""
    if value != "":
        _endpoint(owner, attribute, value)


def _group_or_none(owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check that a value is GROUP:PORT of a multicast group, or empty."""
    _endpoint_or_none(owner, attribute, value)
    if value:
        address, port = split(str(value))
        if not ipaddress.IPv4Address(address).is_multicast or not port:
            raise UsageError(f"{attribute.name}: expected a multicast group, 224.0.0.0 to 239.255.255.255, and a port")


def _address(_owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check that a value is an IPv4 address."""
    try:
        ipaddress.IPv4Address(str(value))
    except ValueError:
        raise UsageError(f"{attribute.name}: expected an IPv4 address, found {value!r}") from None


def _cores(_owner: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Check that a value is a table of roles, each with the number of a core."""
    if not isinstance(value, dict):
        raise UsageError(f"{attribute.name}: expected a table of roles and cores, found {value!r}")
    for role, core in value.items():
        if role not in PINNED:
            raise UsageError(f"{attribute.name}: expected one of {', '.join(PINNED)}, found {role!r}")
        if not isinstance(core, int) or isinstance(core, bool) or not 0 <= core <= CORE_MAX:
            raise UsageError(f"{attribute.name}: {role}: expected a whole number from 0 to {CORE_MAX}, found {core!r}")


def split(endpoint: str) -> tuple[str, int]:
    """Return address and port of an endpoint; raise ValueError when it is none."""
    address, _, port = endpoint.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= 65_535):
        raise ValueError(port)
    return str(ipaddress.IPv4Address(address)), int(port)


@frozen(kw_only=True)
class VenueConfig:
    """The engine and its journal."""

    directory: str = field(default="journal", validator=_text)
    orders: int = field(default=ORDER_CAPACITY, validator=_whole(1, ORDER_CAPACITY_MAX))
    instruments: int = field(default=INSTRUMENT_CAPACITY, validator=_whole(1, INSTRUMENT_CAPACITY_MAX))
    durability: str = field(default="D0", validator=_one_of(*(level.name for level in Durability)))
    backend: str = field(default="mmap", validator=_one_of(*BACKENDS))
    segment_records: int = field(default=SEGMENT_RECORDS, validator=_whole(1, SEGMENT_RECORDS_MAX))
    engine: str = field(default="fast", validator=_one_of("fast", "reference"))


@frozen(kw_only=True)
class InstrumentConfig:
    """An instrument that is defined when the venue does not have it yet."""

    number: int = field(validator=_whole(1, INSTRUMENT_MAX))
    tick: int = field(default=1, validator=_whole(1, TICK_MAX))
    lot: int = field(default=1, validator=_whole(1, LOT_MAX))
    low: int = field(default=0, validator=_whole(-PRICE_MAX, PRICE_MAX))
    high: int = field(default=1_000_000, validator=_whole(-PRICE_MAX, PRICE_MAX))
    state: str = field(default="open", validator=_one_of(*STATES))

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise UsageError(f"low: expected a price of at most high, {self.high}, found {self.low}")


@frozen(kw_only=True)
class EntryConfig:
    """Order entry."""

    listen: str = field(default="127.0.0.1:7001", validator=_endpoint)
    allow_remote: bool = field(default=False, validator=_truth)
    users: str = field(default="ferrox.users", validator=_text)
    connections: int = field(default=1_024, validator=_whole(1, 16_384))
    heartbeat_ms: int = field(default=1_000, validator=_whole(10, 60_000))
    timeout_ms: int = field(default=15_000, validator=_whole(30, 600_000))

    def __attrs_post_init__(self) -> None:
        if self.timeout_ms < 2 * self.heartbeat_ms:
            raise UsageError(
                f"timeout_ms: expected two heartbeats at least, {2 * self.heartbeat_ms}, found {self.timeout_ms}: who "
                "beats in time must not be taken for lost"
            )


@frozen(kw_only=True)
class FeedConfig:
    """The feed, and what repairs it."""

    line_a: str = field(default="239.255.70.1:7101", validator=_group_or_none)
    line_b: str = field(default="239.255.70.2:7102", validator=_group_or_none)
    interface: str = field(default="127.0.0.1", validator=_address)
    ttl: int = field(default=0, validator=_whole(0, 255))
    retransmission: str = field(default="127.0.0.1:7103", validator=_endpoint)
    snapshots: str = field(default="127.0.0.1:7104", validator=_endpoint)


@frozen(kw_only=True)
class RiskConfig:
    """Limits for every account, until an operator sets others; 0 is none (RISK-6)."""

    max_quantity: int = field(default=0, validator=_whole(0, QUANTITY_MAX))
    max_notional: int = field(default=0, validator=_whole(0, MONEY_MAX))
    collar: int = field(default=0, validator=_whole(0, PRICE_MAX))
    max_open_orders: int = field(default=0, validator=_whole(0, QUANTITY_MAX))
    max_exposure: int = field(default=0, validator=_whole(0, MONEY_MAX))
    order_rate: int = field(default=0, validator=_whole(0, QUANTITY_MAX))
    cancel_rate: int = field(default=0, validator=_whole(0, QUANTITY_MAX))


@frozen(kw_only=True)
class MemoryConfig:
    """The shared memory between processes."""

    ring: int = field(default=65_536, validator=_power_of_two(128, 1 << 20))
    tape: int = field(default=4_194_304, validator=_power_of_two(1_024, 1 << 26))


@frozen(kw_only=True)
class SnapshotsConfig:
    """The snapshots of the shadow."""

    every: int = field(default=4_194_304, validator=_whole(1, 2**62))
    keep: int = field(default=2, validator=_whole(1, 1_000))


@frozen(kw_only=True)
class ProcessesConfig:
    """Where processes run, and how they wait."""

    spin_us: int = field(default=50, validator=_whole(0, 1_000_000))
    pin: dict[str, int] = field(factory=dict, validator=_cores)


@frozen(kw_only=True)
class MetricsConfig:
    """Metrics for Prometheus, over HTTP."""

    listen: str = field(default="127.0.0.1:7105", validator=_endpoint_or_none)


@frozen(kw_only=True)
class LogConfig:
    """What the processes write about themselves, to standard error."""

    format: str = field(default="text", validator=_one_of("text", "json"))


@frozen(kw_only=True)
class Config:
    """All of it; `path` is the file, and relative paths begin at its folder."""

    path: Path
    venue: VenueConfig = field(factory=VenueConfig)
    instrument: tuple[InstrumentConfig, ...] = ()
    entry: EntryConfig = field(factory=EntryConfig)
    feed: FeedConfig = field(factory=FeedConfig)
    risk: RiskConfig = field(factory=RiskConfig)
    memory: MemoryConfig = field(factory=MemoryConfig)
    snapshots: SnapshotsConfig = field(factory=SnapshotsConfig)
    processes: ProcessesConfig = field(factory=ProcessesConfig)
    metrics: MetricsConfig = field(factory=MetricsConfig)
    log: LogConfig = field(factory=LogConfig)

    @property
    def journal(self) -> Path:
        """The directory of the journal."""
        return self.path.parent / self.venue.directory

    @property
    def users(self) -> Path:
        """The file of the users and their secrets."""
        return self.path.parent / self.entry.users

    @property
    def lock(self) -> Path:
        """The file that a running service holds."""
        return self.path.parent / f"{self.path.stem}.lock"

    @property
    def presence(self) -> Path:
        """The file of the accounts whose orders are canceled when their connections end (ENTRY-15)."""
        return self.path.parent / f"{self.path.stem}.presence"

    @property
    def control(self) -> Path:
        """The socket of the supervisor."""
        return self.path.parent / f"{self.path.stem}.sock"


SECTIONS: Final[dict[str, type]] = {
    "venue": VenueConfig,
    "entry": EntryConfig,
    "feed": FeedConfig,
    "risk": RiskConfig,
    "memory": MemoryConfig,
    "snapshots": SnapshotsConfig,
    "processes": ProcessesConfig,
    "metrics": MetricsConfig,
    "log": LogConfig,
}
REMOTE: Final = "set allow_remote = true in [entry] if other machines shall reach it"


def read_config(path: str | Path) -> Config:
    """Return what a file says; raise `UsageError` that names the file, the key and what to do."""
    place = Path(path)
    try:
        data = tomllib.loads(place.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; name a file with --config, or write one with: ferrox init"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: this is no TOML: {error}") from None
    _expect_known(path, "", data, [*SECTIONS, "instrument"])
    parts: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        if name in data:
            parts[name] = _section(path, f"[{name}] ", kind, data[name])
    tables = data.get("instrument", [])
    if not isinstance(tables, list):
        raise UsageError(f"{path}: instrument: write [[instrument]], with two brackets, for each of them")
    parts["instrument"] = tuple(_section(path, "[[instrument]] ", InstrumentConfig, table) for table in tables)
    config = Config(path=place.absolute(), **parts)
    if len(config.instrument) > config.venue.instruments:
        raise UsageError(
            f"{path}: [venue] instruments: expected room for the {len(config.instrument)} of [[instrument]], found "
            f"{config.venue.instruments}"
        )
    numbers = [instrument.number for instrument in config.instrument]
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{path}: [[instrument]] number: each number stands once, found {sorted(numbers)}")
    _expect_local(path, config)
    return config


def _section(path: str | Path, where: str, kind: type, table: object) -> Any:
    """Return a section as its class, every key of it known and in order."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {where.strip()}: expected a table, found {table!r}")
    _expect_known(path, where, table, [attribute.name for attribute in attrs.fields(kind)])
    try:
        return kind(**table)
    except UsageError as error:
        raise UsageError(f"{path}: {where}{error}") from None
    except TypeError:
        raise UsageError(f"{path}: {where.strip()}: the key number is missing") from None


def _expect_known(path: str | Path, where: str, table: dict[str, Any], known: list[str]) -> None:
    """Raise for the first key that is not known, with the nearest one that is."""
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise UsageError(f"{path}: {where}{key}: there is no such key; {hint}")


def _expect_local(path: str | Path, config: Config) -> None:
    """Raise when something would listen to other machines, and nobody said that it may."""
    if config.entry.allow_remote:
        return
    for where, endpoint in (
        ("[entry] listen", config.entry.listen),
        ("[feed] retransmission", config.feed.retransmission),
        ("[feed] snapshots", config.feed.snapshots),
        ("[metrics] listen", config.metrics.listen),
    ):
        if endpoint and not ipaddress.ip_address(split(endpoint)[0]).is_loopback:
            raise UsageError(f"{path}: {where}: {endpoint} is not of this machine; {REMOTE}")
