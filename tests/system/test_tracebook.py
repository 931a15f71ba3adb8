"""A public referee of matching engines, tracebook-conformance, qualifies every engine through the adapter in examples/.

The real tool is run as a subprocess, and it runs the adapter as one; both are what a stranger would start.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ferrox.engine import ENGINES

pytestmark = pytest.mark.external

PROJECT = Path(__file__).parents[2]
ADAPTER = PROJECT / "examples" / "adapters" / "tracebook_adapter.py"
TOOL = shutil.which("tracebook-conformance", path=str(Path(sys.executable).parent))
TRACES = 8

if TOOL is None:
    pytest.skip("tracebook-conformance is not installed here; `pip install ferrox[test]`", allow_module_level=True)


@pytest.fixture(params=ENGINES)
def engine_name(request) -> str:
    return str(request.param)


def judge(*arguments: object, engine: str, adapter: Path = ADAPTER) -> subprocess.CompletedProcess[str]:
    """Run the tool on an engine behind the adapter."""
    command = [TOOL, *arguments, "--timeout", "60", "--candidate", sys.executable, adapter, engine]
    return subprocess.run(
        [str(word) for word in command],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Return a copy of the tool's own suite of fixed cases."""
    folder = tmp_path_factory.mktemp("tracebook") / "suite"
    subprocess.run([str(TOOL), "sample", str(folder)], capture_output=True, check=True)
    return folder


def test_every_engine_qualifies_for_the_full_fifo_profile(engine_name: str, tmp_path: Path):
    """Limit, market, IOC and FOK orders, reductions, replaces, clears, wrong ids, several symbols: all thirteen."""
    profile = ("--profile", "fifo-full-v1", "--traces", TRACES, "--seed", 20261123)

    run = judge("qualify", *profile, "--output-dir", tmp_path / "evidence", engine=engine_name)

    assert run.returncode == 0, run.stdout + run.stderr
    evidence = json.loads((tmp_path / "evidence" / "qualification.json").read_text("utf-8"))
    assert evidence["qualified"] is True
    assert evidence["candidate_engine"]["name"] == f"ferrox-{engine_name}"
    assert evidence["checks"] == {
        "fixed_cases": {"passed": 5, "total": 5, "complete": True},
        "generated_campaign": {"completed_traces": TRACES, "requested_traces": TRACES, "conformant": True},
        "semantic_coverage": {"covered": 13, "expected": 13, "uncovered": [], "complete": True},
    }


def test_every_fixed_case_but_pro_rata_conforms(engine_name: str, suite: Path, tmp_path: Path):
    """The cases of self-trade prevention are in no profile; they are run one by one, as all others (STP-3, STP-4)."""
    results = {}

    for case in json.loads((suite / "manifest.json").read_text("utf-8"))["cases"]:
        config, report = case["config"], tmp_path / f"{case['name']}.json"
        options = (
            *("--algorithm", config["matching_algorithm"], "--tick-size", config["tick_size"]),
            *("--self-trade-policy", config["self_trade_policy"], "--output", report),
        )
        run = judge("run", suite / case["events"], *options, engine=engine_name)
        results[case["name"]] = run.returncode
        if run.returncode == 0:
            assert json.loads(report.read_text("utf-8"))["conformant"] is True

    assert results == {
        "fifo-lifecycle": 0,
        "order-instructions": 0,
        "stp-cancel-resting": 0,
        "stp-cancel-resting-deep": 0,
        "stp-cancel-incoming": 0,
        "pro-rata-allocation": 2,  # refused: Ferrox has no pro-rata queues
        "multi-symbol": 0,
        "tick-grid": 0,
        "deep-cancellation": 0,
    }


def test_pro_rata_is_refused_in_words(suite: Path):
    run = judge("run", suite / "pro-rata-allocation.jsonl", "--algorithm", "pro_rata", engine="reference")

    assert run.returncode == 2
    assert "Ferrox matches by price-time priority only" in run.stdout + run.stderr


def test_the_referee_tells_a_wrong_engine(tmp_path: Path):
    """The adapter decides nothing itself: over an engine that fills the newest order first, it does not qualify."""
    program = tmp_path / "newest_first.py"
    program.write_text(
        "import runpy, sys\n"
        "from ferrox.reference import book\n"
        "book.Level.oldest = lambda level: [order for order in level.queue if order.leaves][-1]\n"
        f"runpy.run_path({str(ADAPTER)!r}, run_name='__main__')\n",
        "utf-8",
    )
    profile = ("--profile", "fifo-full-v1", "--traces", 2, "--max-minimize-runs", 1)

    run = judge("qualify", *profile, "--output-dir", tmp_path / "evidence", engine="reference", adapter=program)

    assert run.returncode == 1, run.stdout + run.stderr
