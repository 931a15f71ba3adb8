"""The verbs that speak to a running service, as an operator types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; the kit stands beside this file

from service_kit import Service  # type: ignore[import-not-found]

NEEDED = {
    "halt": ["1"],
    "kill-switch": ["--venue"],
    "limit": ["collar", "5"],
    "resume": ["1"],
    "send": ["--user", "maker", "buy", "1", "@", "1"],
    "status": [],
    "stop": [],
    "watch": ["--once"],
}


def ferrox(config, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "ferrox", *arguments, "--config", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"NO_COLOR": "1"},
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("cli-service")) as running:
        yield running


@pytest.mark.parametrize("verb", NEEDED)
def test_without_a_service_a_verb_says_so_in_one_line(verb, tmp_path):
    service = Service(tmp_path)

    plain = ferrox(service.config_file, verb, *NEEDED[verb])
    with_json = ferrox(service.config_file, verb, *NEEDED[verb], "--json")

    assert plain.returncode == with_json.returncode == 2
    (line,) = plain.stderr.splitlines()
    assert "no service answers there" in line
    assert json.loads(with_json.stdout)["exit_status"] == 2


@pytest.mark.parametrize("verb", ["serve", *NEEDED])
def test_without_a_configuration_a_verb_says_how_to_get_one(verb, tmp_path):
    run = ferrox(tmp_path / "none.toml", verb, *NEEDED.get(verb, []))

    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "ferrox init" in line


def test_an_order_by_hand_is_answered(service):
    sold = ferrox(service.config_file, "send", "--user", "maker", "sell", "10", "@", "5001")
    bought = ferrox(service.config_file, "send", "--user", "taker", "buy", "4", "market", "--json")
    gone = ferrox(service.config_file, "send", "--user", "maker", "cancel", "#999")
    wrong = ferrox(service.config_file, "send", "--user", "maker", "sell", "ten")
    nobody = ferrox(service.config_file, "send", "--user", "nobody", "sell", "1", "@", "1")

    assert sold.stdout == "reference #1\nnew #7/1 10 @ 5001\n"
    answer = json.loads(bought.stdout)
    assert (answer["taken"], answer["answer"][-1]) == (True, "trade #9/1 4 @ 5001 with #7/1")
    assert (gone.returncode, gone.stdout.splitlines()[-1]) == (1, "cancel-rejected #7/999 unknown-order")
    assert (wrong.returncode, nobody.returncode) == (2, 2)
    assert "a quantity" in wrong.stderr
    assert "there is no user 'nobody'" in nobody.stderr


def test_an_operator_halts_kills_limits_and_resumes(service):
    """RISK-7."""
    calls = [
        (["halt", "1", "2"], 0, "state-changed 1 halted\nstate-changed 2 halted\n"),
        (["resume", "1", "2"], 0, "state-changed 1 open\nstate-changed 2 open\n"),
        (["halt", "9"], 1, "rejected #0 unknown-instrument on 9\n"),
        (["limit", "max-quantity", "5", "--account", "9"], 0, "limit-set max-quantity 5 account 9\n"),
        (["send", "--user", "taker", "buy", "6", "@", "1"], 1, "reference #2\nrefused by the gateway: max-quantity\n"),
        (["limit", "max-quantity", "0", "--account", "9"], 0, "limit-set max-quantity 0 account 9\n"),
        (["kill-switch", "--instrument", "2"], 0, "limit-set kill 1 on 2\n"),
        (["kill-switch", "--instrument", "2", "--off"], 0, "limit-set kill 0 on 2\n"),
    ]

    for arguments, status, shown in calls:
        run = ferrox(service.config_file, *arguments)
        assert (run.returncode, run.stdout) == (status, shown), (arguments, run.stderr)
    assert ferrox(service.config_file, "kill-switch").returncode == 2
    assert ferrox(service.config_file, "kill-switch", "--venue", "--account", "1").returncode == 2


def test_the_status_tells_every_process(service):
    told = json.loads(ferrox(service.config_file, "status", "--json").stdout)
    shown = ferrox(service.config_file, "status")

    assert told["ready"]
    assert shown.returncode == 0
    for role in ("matcher", "gateway", "publisher", "retransmitter", "shadow"):
        assert told["processes"][role]["state"] == "running"
        assert f"\n{role}" in shown.stdout


def test_a_service_that_is_asked_to_stop_has_ended_when_the_verb_returns(tmp_path):
    with Service(tmp_path) as service:
        run = ferrox(service.config_file, "stop", "--json")

        assert json.loads(run.stdout) == {"verb": "stop", "stopped": True}
        assert service.process.wait(10) == 0


def test_what_init_writes_is_a_service(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ferrox", "init", tmp_path / "new"], capture_output=True, check=False, timeout=60
    )
    again = subprocess.run(
        [sys.executable, "-m", "ferrox", "init", tmp_path / "new"], capture_output=True, check=False, timeout=60
    )

    assert done.returncode == 0
    assert (tmp_path / "new" / "ferrox.users").stat().st_mode & 0o777 == 0o600
    assert again.returncode == 2
    assert b"is not replaced" in again.stderr


@pytest.mark.parametrize("role", ["matcher", "gateway", "none"])
def test_a_rehearsal_loses_nothing_and_proves_it(role, tmp_path):
    """RING-6, RING-10, FEED-14: the clients, the feed, the live engine and the oracle have the same."""
    run = subprocess.run(
        [sys.executable, "-m", "ferrox", "rehearse", "--seconds", "4", "--rate", "200", "--kill", role, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
    )

    assert run.returncode == 0, run.stderr + run.stdout
    told = json.loads(run.stdout)
    assert told["proved"]
    assert (told["lost"], told["doubled"], told["wrong"]) == (0, 0, 0)
    assert told["commands"] == told["answered"] > 100
    assert told["trades"]
    assert told["feed_digest"] == told["reports_digest"]
    assert told["live_state_digest"] == told["state_digest"]
    assert bool(told["back_after_seconds"]) == (role != "none")
