"""The command line as a whole: help, versions, errors, streams, signals; the verbs have files of their own beside this.

Tests start processes, because what is claimed is what a shell sees: two streams and a status.  Only the long tables of
wrong input call `ferrox.cli.run`, which is all of the command line but the process around it.
"""

import ctypes
import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ferrox
from ferrox import cli
from ferrox.cli import VERBS

CHECKOUT = Path(ferrox.__file__).parents[1]
FERROX = [sys.executable, "-m", "ferrox"]
NEEDED = {
    "archive": ["flow"],
    "demo": [],
    "import": ["orders.csv", "--out", "new"],
    "init": ["new"],
    "inspect": ["flow"],
    "pipe": [],
    "replay": ["flow"],
    "salvage": ["flow"],
    "shadow": ["flow", "--until-sealed"],
    "simulate": ["--commands", "100", "--out", "new"],
    "verify": ["flow"],
}
QUICK = NEEDED | {"demo": ["--commands", "2000"]}
SERVED = ("halt", "kill-switch", "limit", "rehearse", "resume", "send", "serve", "status", "stop", "watch")
"""Verbs that speak to a running service; tests/system/test_cli_service.py has one for them."""


def environment(**changes):
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    left_out = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "COVERAGE_")  # coverage would write its own files there
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return kept | {"PYTHONPATH": os.pathsep.join(paths)} | changes


def ferrox_run(*arguments, cwd, stdin=b"", **options):
    """Run a verb to its end; return status, stdout and stderr, the streams as text."""
    environ = environment(**options.pop("environ", {}))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 120} | options
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run([*FERROX, *map(str, arguments)], cwd=cwd, env=environ, check=False, **given, **options)


def ferrox_start(*arguments, cwd, environ=None, **options):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    return subprocess.Popen(
        [*FERROX, *map(str, arguments)], cwd=cwd, env=environment(**(environ or {})), **(pipes | options)
    )


def ferrox_json(*arguments, cwd, status=0, stdin=b""):
    """Run a verb with --json and return its one object."""
    run = ferrox_run(*arguments, "--json", cwd=cwd, stdin=stdin)
    assert run.returncode == status, run.stderr.decode()
    (line,) = run.stdout.decode().splitlines()
    value = json.loads(line)
    assert isinstance(value, dict)
    return value


@pytest.fixture
def call(capsys, monkeypatch):
    """Run verbs in this process: what comes back is what `ferrox_run` gives, sooner."""

    def call(*arguments, cwd):
        monkeypatch.chdir(cwd)
        status = cli.run(list(map(str, arguments)))
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, out.encode(), err.encode())

    return call


def expect_error(run, status, *words):
    """Hold a run to one line on stderr, with these words, nothing on stdout, and no traceback."""
    (line,) = run.stderr.decode().splitlines()
    assert run.returncode == status, line
    assert line.startswith("ferrox: ")
    assert not run.stdout
    for word in words:
        assert word in line
    return line


def make_flow(place):
    """Write a journal of 5,000 commands, `flow`, and `orders.csv` beside it; return the journal's directory."""
    run = ferrox_run("simulate", "--seed", "7", "--commands", "5000", "--out", "flow", cwd=place)
    assert run.returncode == 0, run.stderr
    (place / "orders.csv").write_text("side,price,quantity\nbuy,100,5\nsell,100,3\n")
    return place / "flow"


def copy_flow(flow, place):
    """Copy the journal and `orders.csv` to a directory, so that they may be changed; return the directory."""
    shutil.copytree(flow, place / "flow")
    shutil.copy(flow.parent / "orders.csv", place)
    return place


@pytest.fixture(scope="session")
def flow(tmp_path_factory):
    return make_flow(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def place(flow, tmp_path):
    return copy_flow(flow, tmp_path)


# ------------------------------------------------------------------------------------------------------ help, version


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_teaches_with_examples(verb, tmp_path):
    run = ferrox_run(verb, "--help", cwd=tmp_path)

    text = run.stdout.decode()
    assert run.returncode == 0
    assert f"Examples:\n    ferrox {verb}" in text or f"ferrox {verb}" in text.split("Examples:")[1]
    assert "--json" in text


def test_the_list_of_verbs_says_what_each_verb_says_of_itself(tmp_path):
    listed = ferrox_run("--help", cwd=tmp_path).stdout.decode()

    for verb, (_, line) in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(line)}$", listed, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["--help"], ["replay", "--help"]])
def test_help_imports_nothing_that_draws(arguments, tmp_path):
    """Help is asked for often; what only progress and tables need is imported where they are shown."""
    program = f"import sys; from ferrox.cli import run; run({arguments}); sys.exit('rich' in sys.modules)"

    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, check=False
    )

    assert run.returncode == 0, run.stderr.decode()


def test_the_version_names_the_build_of_the_fast_engine_and_what_it_runs_on(tmp_path):
    run = ferrox_run("--version", cwd=tmp_path)

    assert re.fullmatch(
        r"ferrox \d+\.\d+\.\d+ · fast engine (COMPILED|interpreted \(.*\)) · CPython 3\.\d+\.\d+\S* · librt \S+\n",
        run.stdout.decode(),
    )


# ---------------------------------------------------------------------------------------------------------- usage


def test_a_call_without_a_verb_says_what_is_missing(tmp_path):
    expect_error(ferrox_run(cwd=tmp_path), 2, "Missing command")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replai", "flow"], ["no verb 'replai'", "did you mean 'replay'"]),
        (["xyz"], ["no verb 'xyz'", "choose one of", "replay"]),
        (["replay", "flow", "--untill", "3"], ["--untill", "Did you mean '--until'", "ferrox replay --help"]),
        (["replay"], ["Missing argument 'DIR'"]),
        (["replay", "flow", "flow"], ["unexpected extra argument"]),
        (["replay", "flow", "--engine", "quick"], ["'quick'", "reference", "fast"]),
        (["replay", "flow", "--until", "-1"], ["-1", "0<=x"]),
        (["replay", "flow", "--until", "NaN"], ["'NaN'"]),
        (["replay", "flow", "--until", "1.5"], ["'1.5'"]),
        (["replay", "flow", "--until", "9" * 30], ["9" * 30]),
        (["replay", "flow", "--until", "9" * 6000], ["999"]),
        (["replay", "flow", "--reports", "reports.txt"], [".csv", ".parquet", ".bin"]),
        (["replay", "flow", "--reports", "/dev/full"], [".csv", ".parquet", ".bin"]),
        (["simulate", "--seed", "-1", "--out", "new"], ["-1"]),
        (["simulate", "--seed", str(2**64), "--out", "new"], [str(2**64)]),
        (["simulate", "--seed", "inf", "--out", "new"], ["'inf'"]),
        (["simulate", "--commands", "-5", "--out", "new"], ["-5"]),
        (["simulate", "--commands", "1e6", "--out", "new"], ["'1e6'"]),
        (["simulate", "--seed", "1"], ["--out"]),
        (["simulate", "--out", "-"], ["stdout"]),
        (["simulate", "--preset", "wild", "--out", "new"], ["'wild'", "calm"]),
        (["import", "orders.csv"], ["--out"]),
        (["import", "orders.csv", "--out", "new", "--band", "9", "1"], ["--band"]),
        (["import", "orders.csv", "--out", "new", "--tick", "0"], ["--tick"]),
        (["inspect", "flow", "--from", "0"], ["--from"]),
        (["inspect", "flow", "--limit", "-1"], ["--limit"]),
        (["pipe", "--end"], ["--text"]),
        (["pipe", "--reports", "-"], ["--reports"]),
        (["pipe", "--orders", "0"], ["--orders"]),
        (["demo", "--commands", "0"], ["--commands"]),
    ],
)
def test_a_wrong_call_gives_one_line_that_names_the_fault_and_status_2(flow, arguments, words, call):
    run = call(*arguments, cwd=flow.parent)

    expect_error(run, 2, *words)
    assert not (flow.parent / "new").exists()


@pytest.mark.parametrize("verb", ["replay", "verify", "inspect"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "no such"),
        ("empty", "holds no journal"),
        ("", "no such"),
        ("new\nline", "new\\nline"),
        ("a" * 300, "aaa"),
    ],
)
def test_a_directory_that_holds_no_journal_is_named(verb, name, words, tmp_path, call):
    (tmp_path / "empty").mkdir()

    expect_error(call(verb, name, cwd=tmp_path), 2, words)


def test_a_wrong_call_ends_a_process_with_one_line_and_status_2(tmp_path):
    expect_error(ferrox_run("replay", "missing", "--until", "5", cwd=tmp_path), 2, "missing", "no such directory")
    expect_error(ferrox_run("replay", "missing", "--until", "x", cwd=tmp_path), 2, "--until", "'x'")


@pytest.mark.parametrize("verb", ["replay", "verify"])
def test_a_file_in_the_place_of_a_journal_is_refused(verb, flow):
    expect_error(ferrox_run(verb, "orders.csv", cwd=flow.parent), 2, "not a directory")


@pytest.mark.parametrize("verb", ["simulate", "import", "demo"])
@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("flow", "already holds a journal"),
        ("orders.csv", "not a directory"),
        ("full", "is not empty"),
        ("missing/new", "No such file"),
        ("/dev/null/new", "Not a directory"),
        ("/proc/new", "/proc/new"),
    ],
)
def test_a_place_that_cannot_take_a_journal_is_refused_and_left_as_it_is(verb, out, words, place, call):
    (place / "full").mkdir()
    (place / "full" / "mine").write_text("keep me")
    before = sorted(path.name for path in place.rglob("*"))
    arguments = {"simulate": ["--out"], "import": ["orders.csv", "--out"], "demo": ["--keep"]}[verb]

    expect_error(call(verb, *arguments, out, cwd=place), 2, words)

    assert sorted(path.name for path in place.rglob("*")) == before
    assert (place / "full" / "mine").read_text() == "keep me"


def obey_file_modes():
    """Give up what lets root read everything: CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2), see capabilities(7)."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; refused to others, who obey anyway


@pytest.mark.parametrize("verb", ["replay", "verify", "inspect"])
def test_a_directory_that_may_not_be_read_is_named(verb, place):
    (place / "flow").chmod(0)

    run = ferrox_run(verb, "flow", cwd=place, preexec_fn=obey_file_modes)

    expect_error(run, 2, "not readable")


# ----------------------------------------------------------------------------------------------------------- JSON


def test_every_verb_is_tried():
    assert sorted([*QUICK, *SERVED]) == sorted(VERBS)


@pytest.mark.parametrize("verb", QUICK)
def test_json_gives_exactly_one_object_on_stdout(verb, place):
    value = ferrox_json(verb, *QUICK[verb], cwd=place)

    assert value["verb"] == verb


@pytest.mark.parametrize(
    "arguments", [["replay", "missing"], ["replay", "flow", "--no-such"], ["nonsense"], ["inspect", "x"]]
)
def test_an_error_is_one_object_too_where_json_was_asked_for(arguments, flow):
    run = ferrox_run(*arguments, "--json", cwd=flow.parent)

    value = json.loads(run.stdout)
    assert value["exit_status"] == run.returncode == 2
    assert value["error"] in run.stderr.decode()


# -------------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("verb", [verb for verb in QUICK if verb != "pipe"])
def test_a_reader_that_goes_away_ends_a_verb_in_silence_with_the_status_of_a_closed_pipe(verb, place):
    read_end, write_end = os.pipe()
    os.close(read_end)

    run = ferrox_run(verb, *QUICK[verb], cwd=place, stdout=write_end)
    os.close(write_end)

    assert run.returncode == 128 + signal.SIGPIPE
    assert run.stderr == b""


def test_head_takes_its_line_and_nobody_complains(flow):
    line = f"{sys.executable} -m ferrox replay flow --book | head -1; echo ${{PIPESTATUS[0]}} 1>&2"

    run = subprocess.run(["bash", "-c", line], cwd=flow.parent, env=environment(), capture_output=True, check=False)

    assert len(run.stdout.splitlines()) == 1
    assert run.stderr.split() in ([b"141"], [b"0"])


@pytest.mark.parametrize("verb", QUICK)
@pytest.mark.parametrize("mode", [[], ["--json"]])
def test_a_full_disk_behind_stdout_is_one_line(verb, mode, place):
    stdin = b"instrument 1 tick 1 lot 1 band 0 9 open\n" if verb == "pipe" else b""
    extra = ["--text"] if verb == "pipe" else []
    with Path("/dev/full").open("wb") as full:
        run = ferrox_run(verb, *QUICK[verb], *extra, *mode, cwd=place, stdout=full, stdin=stdin)

    lines = run.stderr.decode().splitlines()
    assert run.returncode == 2
    assert len(lines) <= 2
    assert "No space left on device" in lines[0]
    assert all(line.startswith("ferrox: ") for line in lines)


def test_a_closed_stdout_is_one_line_and_no_file_of_ours_takes_its_place(place):
    run = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m ferrox simulate --commands 10 --out new >&-"],
        cwd=place,
        env=environment(),
        capture_output=True,
        check=False,
    )

    assert run.returncode == 2
    assert b"Bad file descriptor" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert ferrox_run("verify", "new", cwd=place).returncode == 0


def test_what_is_written_to_a_full_stderr_is_lost_and_nothing_else(place):
    with Path("/dev/full").open("wb") as full:
        run = ferrox_run("replay", "flow", "--until", "99999", "--json", cwd=place, stderr=full)

    assert run.returncode == 0
    assert json.loads(run.stdout)["commands"] == 5000


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_disk_that_fills_up_while_a_journal_is_written_leaves_nothing_there(place):
    run = ferrox_run("simulate", "--commands", "5000", "--out", "new", cwd=place, preexec_fn=limit_file_size)

    expect_error(run, 4, "File too large")
    assert not (place / "new").exists()


@pytest.mark.parametrize("name", ["reports.csv", "reports.bin", "reports.parquet"])
def test_a_disk_that_fills_up_while_reports_are_written_is_one_line(name, place):
    run = ferrox_run("replay", "flow", "--reports", name, cwd=place, preexec_fn=limit_file_size)

    expect_error(run, 2, name, "File too large")
    assert not list(place.glob("reports*"))


# -------------------------------------------------------------------------------------------------------- signals


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_simulation_that_is_stopped_leaves_nothing_behind(number, status, word, tmp_path):
    process = ferrox_start("simulate", "--commands", "500000000", "--out", "new", cwd=tmp_path)
    until(lambda: any(path.stat().st_size > 100_000 for path in tmp_path.glob("new/*.wal")))

    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)

    assert (process.returncode, stdout, stderr.decode()) == (status, b"", f"ferrox: {word}\n")
    assert not (tmp_path / "new").exists()


def test_an_import_that_is_interrupted_leaves_nothing_behind(tmp_path):
    process = ferrox_start("import", "-", "--out", "new", cwd=tmp_path)
    rows = b"buy,100,5\n" * 20_000
    process.stdin.write(b"side,price,quantity\n" + rows)
    until(lambda: any(path.stat().st_size > 100_000 for path in tmp_path.glob("new/*.wal")))

    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)

    assert (process.returncode, stderr.decode()) == (130, "ferrox: interrupted\n")
    assert not (tmp_path / "new").exists()


def test_a_replay_that_is_interrupted_while_its_reader_sleeps_says_one_line(flow):
    process = ferrox_start("replay", "flow", "--reports", "-", cwd=flow.parent)
    os.read(process.stdout.fileno(), 48)

    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    with process:
        process.stdout.close()  # what it has still to flush goes nowhere
        stderr = process.stderr.read()

    assert process.returncode in (130, 141)
    assert b"Traceback" not in stderr
    assert len(stderr.splitlines()) <= 1


def test_a_demo_that_is_interrupted_leaves_nothing_in_the_temporary_directory(tmp_path):
    process = ferrox_start("demo", "--commands", "500000000", cwd=tmp_path, environ={"TMPDIR": str(tmp_path)})
    until(lambda: any(path.stat().st_size > 100_000 for path in tmp_path.glob("*/journal/*.wal")))

    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)

    assert (process.returncode, stdout, stderr.decode()) == (130, b"", "ferrox: interrupted\n")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------- terminals


def on_a_terminal(stream, *arguments, cwd, **environ):
    """Run a verb with one stream on a terminal; return what the terminal got, and what the other stream got."""
    master, slave = pty.openpty()
    other = "stdout" if stream == "stderr" else "stderr"
    process = subprocess.Popen(
        [*FERROX, *arguments],
        cwd=cwd,
        env=environment(**({"TERM": "xterm-256color", "COLUMNS": "120"} | environ)),
        stdin=subprocess.DEVNULL,
        stdout=slave if stream == "stdout" else subprocess.PIPE,
        stderr=slave if stream == "stderr" else subprocess.PIPE,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the last one that had the terminal is gone
            break
        if not data:
            break
        shown += data
    os.close(master)
    rest = getattr(process, other).read()
    getattr(process, other).close()
    assert process.wait() == 0
    return shown.decode(), rest.decode()


def test_progress_is_drawn_for_a_terminal_on_stderr_only(flow):
    drawn, data = on_a_terminal("stderr", "replay", "flow", cwd=flow.parent)
    quiet = ferrox_run("replay", "flow", cwd=flow.parent)

    assert "replaying" in drawn
    assert "\x1b" not in data
    assert quiet.stderr == b""


def test_progress_never_touches_the_one_object_of_json(flow):
    drawn, data = on_a_terminal("stderr", "verify", "flow", "--json", cwd=flow.parent)

    assert "verifying" in drawn
    assert json.loads(data)["verdict"] == "clean"


def test_a_dumb_terminal_gets_no_progress(flow):
    drawn, _ = on_a_terminal("stderr", "replay", "flow", cwd=flow.parent, TERM="dumb")

    assert drawn == ""


def test_colours_are_for_terminals_and_no_color_is_honoured(flow):
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")

    coloured, _ = on_a_terminal("stdout", "replay", "flow", cwd=flow.parent)
    plain, _ = on_a_terminal("stdout", "replay", "flow", cwd=flow.parent, NO_COLOR="1")
    piped = ferrox_run("replay", "flow", cwd=flow.parent).stdout.decode()

    assert colour.search(coloured)
    assert not colour.search(plain)
    assert "\x1b" not in piped


def test_a_locale_without_unicode_gets_ascii(flow):
    run = ferrox_run("replay", "flow", cwd=flow.parent, environ={"PYTHONIOENCODING": "ascii"})

    assert run.returncode == 0
    assert run.stdout.isascii()
    assert b"#####" in run.stdout


# ------------------------------------------------------------------------------------------------------- ourselves


def test_the_module_and_the_command_are_the_same(tmp_path):
    program = "from ferrox.cli import main; main()"

    run = subprocess.run(
        [sys.executable, "-c", program, "--version"], cwd=tmp_path, env=environment(), capture_output=True, check=True
    )

    assert run.stdout == ferrox_run("--version", cwd=tmp_path).stdout


def test_a_defect_of_ours_keeps_its_traceback_and_has_a_status_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(cli, "invoke", lambda _arguments: 1 // 0)

    status = cli.run([])

    assert status == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
