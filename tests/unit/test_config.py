"""What a service is told: every key has a default, and what is wrong is named with its file, section and key."""

import re
from pathlib import Path

import attrs
import pytest

from ferrox.errors import UsageError
from ferrox.service.config import SECTIONS, Config, InstrumentConfig, read_config, split

REMOTE = "is not of this machine; set allow_remote = true in [entry] if other machines shall reach it"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ferrox.toml"


def refusal(path: Path, text: str) -> str:
    """Return what is said of a file, behind its name."""
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_config(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ")


def test_an_empty_file_has_every_default(path):
    path.write_text("")

    config = read_config(path)

    assert config == Config(path=path)
    assert (config.venue.durability, config.entry.allow_remote, config.feed.ttl) == ("D0", False, 0)
    assert set(attrs.astuple(config.risk)) == {0}
    assert config.instrument == ()


def test_a_default_that_is_said_is_the_default(path):
    lines = []
    for name, kind in SECTIONS.items():
        lines.append(f"[{name}]")
        for key, value in attrs.asdict(kind()).items():
            said = str(value).lower() if isinstance(value, bool) else repr(value)
            lines.append(f"{key} = {said}")
    path.write_text("\n".join(lines))

    assert read_config(path) == Config(path=path)


def test_what_is_said_is_read(path):
    path.write_text(
        """
        [venue]
        orders = 67108864
        [[instrument]]
        number = 7
        low = -5
        high = -5
        state = "pre-open"
        [[instrument]]
        number = 1048575
        [risk]
        max_exposure = 4611686018427387903
        [processes]
        pin = { gateway = 1, matcher = 0 }
        [feed]
        line_b = ""
        [metrics]
        listen = ""
        """
    )

    config = read_config(path)

    assert config.venue.orders == 2**26
    assert config.instrument == (
        InstrumentConfig(number=7, low=-5, high=-5, state="pre-open"),
        InstrumentConfig(number=2**20 - 1),
    )
    assert config.risk.max_exposure == 2**62 - 1
    assert config.processes.pin == {"gateway": 1, "matcher": 0}
    assert (config.feed.line_b, config.metrics.listen) == ("", "")


def test_relative_paths_begin_at_the_folder_of_the_file_and_absolute_ones_do_not(path, monkeypatch):
    path.write_text('[entry]\nusers = "/etc/users"\n')
    monkeypatch.chdir(path.parent)

    config = read_config("ferrox.toml")

    assert config.journal == path.parent / "journal"
    assert config.users == Path("/etc/users")
    assert config.lock == path.parent / "ferrox.lock"
    assert config.control == path.parent / "ferrox.sock"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[venu]", "venu: there is no such key; did you mean 'venue'?"),
        ("[instruments]", "instruments: there is no such key; did you mean 'instrument'?"),
        ("[risk]\nmax_quantty = 1", "[risk] max_quantty: there is no such key; did you mean 'max_quantity'?"),
        ("[risk]\nmax_notionl = 0", "[risk] max_notionl: there is no such key; did you mean 'max_notional'?"),
        (
            "[[instrument]]\nnumber = 1\ntik = 1",
            "[[instrument]] tik: there is no such key; did you mean 'tick'?",
        ),
        ("[log]\nq = 1", "[log] q: there is no such key; known are format"),
        ("zzz = 'x'", "zzz: there is no such key; known are venue, entry, feed, risk, memory, "),
    ],
)
def test_a_key_that_is_not_known_is_named_with_the_nearest_that_is(path, text, said):
    assert refusal(path, text).startswith(said)


@pytest.mark.parametrize(
    ("section", "key", "values", "expected"),
    [
        ("venue", "orders", ("0", "67108865", "true", "1.0", '"1"', "[]"), "a whole number from 1 to 67108864"),
        ("venue", "instruments", ("0", "1048576"), "a whole number from 1 to 1048575"),
        ("venue", "directory", ('""', "1", "[]"), "text"),
        ("venue", "durability", ('"d0"', "0", "[]", "{}"), "one of D0, D1, D2"),
        ("venue", "engine", ('"slow"',), "one of fast, reference"),
        ("entry", "connections", ("0", "16385"), "a whole number from 1 to 16384"),
        ("entry", "allow_remote", ("1", '"true"'), "true or false"),
        (
            "entry",
            "listen",
            ("7001", '""', '"localhost:1"', '"127.0.0.1"', '"127.0.0.1:65536"', '"127.0.0.1:-1"', '"127.0.0.1:1_0"'),
            "ADDRESS:PORT with an IPv4 address",
        ),
        ("entry", "timeout_ms", ("1999", "30"), "two heartbeats at least, 2000"),
        ("feed", "line_a", ('"[::1]:1"', "false"), "ADDRESS:PORT with an IPv4 address"),
        ("feed", "snapshots", ('""',), "ADDRESS:PORT with an IPv4 address"),
        ("feed", "retransmission", ('""',), "ADDRESS:PORT with an IPv4 address"),
        ("feed", "interface", ('"eth0"', '""', "1.5"), "an IPv4 address"),
        ("feed", "ttl", ("-1", "256"), "a whole number from 0 to 255"),
        ("risk", "max_quantity", ("-1", "2147483648"), "a whole number from 0 to 2147483647"),
        ("risk", "max_notional", ("-1", "4611686018427387904"), "a whole number from 0 to 4611686018427387903"),
        ("risk", "collar", ("-1", "1099511627776"), "a whole number from 0 to 1099511627775"),
        ("memory", "ring", ("64", "100", "2097152", "true"), "a power of two from 128 to 1048576"),
        ("snapshots", "keep", ("0",), "a whole number from 1 to 1000"),
        ("processes", "spin_us", ("-1",), "a whole number from 0 to 1000000"),
        ("processes", "pin", ("3",), "a table of roles and cores"),
        ("processes", "pin", ("{ gate = 1 }",), "one of matcher, gateway, "),
        ("metrics", "listen", ('"9100"',), "ADDRESS:PORT with an IPv4 address"),
        ("log", "format", ('"xml"',), "one of text, json"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named_with_its_section_and_key(path, section, key, values, expected):
    for value in values:
        said = refusal(path, f"[{section}]\n{key} = {value}\n")

        assert said.startswith(f"[{section}] {key}: expected {expected}"), value
        assert ", found " in said


@pytest.mark.parametrize("core", ["-1", "1024", "true", '"0"'])
def test_a_core_that_is_none_is_named_with_its_role(path, core):
    said = refusal(path, f"[processes.pin]\nmatcher = {core}\n")

    assert said.startswith("[processes] pin: matcher: expected a whole number from 0 to 1023, found ")


def test_a_section_that_is_no_table_is_named(path):
    assert refusal(path, "venue = 3") == "[venue]: expected a table, found 3"
    assert refusal(path, "[[venue]]\norders = 1") == "[venue]: expected a table, found [{'orders': 1}]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("instrument = 3", "instrument: write [[instrument]], with two brackets, for each of them"),
        ("[instrument]\nnumber = 1", "instrument: write [[instrument]], with two brackets, for each of them"),
        ("instrument = [3]", "[[instrument]]: expected a table, found 3"),
        ("[[instrument]]\ntick = 1", "[[instrument]]: the key number is missing"),
        ("[[instrument]]\nnumber = 0", "[[instrument]] number: expected a whole number from 1 to 1048575, found 0"),
        ("[[instrument]]\nnumber = 1\nlow = 2\nhigh = 1", "[[instrument]] low: expected a price of at most high, 1"),
        ("[[instrument]]\nnumber = 1\nstate = 'shut'", "[[instrument]] state: expected one of pre-open, open, halted"),
        (
            "[[instrument]]\nnumber = 2\n[[instrument]]\nnumber = 1\n[[instrument]]\nnumber = 2",
            "[[instrument]] number: each number stands once, found [1, 2, 2]",
        ),
    ],
)
def test_an_instrument_that_is_not_in_order_is_refused(path, text, said):
    assert refusal(path, text).startswith(said)


@pytest.mark.parametrize(
    ("section", "key"), [("entry", "listen"), ("feed", "retransmission"), ("feed", "snapshots"), ("metrics", "listen")]
)
@pytest.mark.parametrize("endpoint", ["0.0.0.0:0", "192.0.2.1:7001"])
def test_who_would_listen_to_other_machines_must_say_so(path, section, key, endpoint):
    text = f'[{section}]\n{key} = "{endpoint}"\n'
    assert refusal(path, text) == f"[{section}] {key}: {endpoint} {REMOTE}"
    allowing = "allow_remote = true\n"

    path.write_text(text + allowing if section == "entry" else f"{text}[entry]\n{allowing}")

    assert getattr(getattr(read_config(path), section), key) == endpoint


def test_every_address_of_this_machine_is_local(path):
    path.write_text('[entry]\nlisten = "127.9.8.7:0"\n')

    assert split(read_config(path).entry.listen) == ("127.9.8.7", 0)


@pytest.mark.parametrize("data", [b"[venue", b"a = ", b"\xff", b"\0", b"[venue]\n[venue]\n"])
def test_what_is_no_toml_is_refused(path, data):
    path.write_bytes(data)

    with pytest.raises(UsageError, match=f"^{re.escape(str(path))}: this is no TOML: "):
        read_config(path)


def test_a_file_that_is_not_there_is_refused_with_what_to_do(path):
    with pytest.raises(UsageError) as refused:
        read_config(path)

    assert str(refused.value) == (
        f"{path}: No such file or directory; name a file with --config, or write one with: ferrox init"
    )


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(UsageError, match=f"^{re.escape(str(tmp_path))}: Is a directory; "):
        read_config(tmp_path)
