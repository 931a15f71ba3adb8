"""`ferrox pipe`: an engine on two pipes, for peers that wait for every answer and for those that do not."""

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ferrox.engine import make_engine
from ferrox.journal import scan
from ferrox.messages import ENVELOPE, unpack_reports
from ferrox.testing.workload import Workload
from ferrox.text import format_report, parse_command

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; what starts a verb stands beside this file

from test_cli import environment, ferrox_json, ferrox_run, ferrox_start  # type: ignore[import-not-found]

DEFINE = "instrument 1 tick 1 lot 1 band 0 1000 open"
LINES = [DEFINE, "sell #1 10 @ 100", "sell #2 10 @ 101", "buy #3 15 @ 101", "cancel #2", "cancel #9"]


def frames_of(lines):
    return b"".join(map(parse_command, lines))


def frames_of_flow(commands):
    flow = b"".join(chunk.tobytes() for chunk in Workload(5, commands))
    return [flow[place + 32 : place + 32 + flow[place + 25]] for place in range(0, len(flow), 64)]


def answers_of(frames):
    """Return the reports and the engine of the oracle; the times are 0, as in a pipe."""
    engine = make_engine("reference")
    records = [
        ENVELOPE.pack(0, 0, number, 0, frame[0], len(frame), 0, 0) + frame.ljust(32, b"\0")
        for number, frame in enumerate(frames, 1)
    ]
    return bytes(engine.apply(b"".join(records))[1]), engine


def text_of(reports):
    return [format_report(report) for report in unpack_reports(reports)]


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_a_stream_of_commands_gives_the_reports_of_the_oracle_and_nothing_else(engine, tmp_path):
    frames = frames_of_flow(5000)

    run = ferrox_run("pipe", "--engine", engine, cwd=tmp_path, stdin=b"".join(frames))

    assert run.returncode == 0
    assert run.stderr == b""
    assert run.stdout == answers_of(frames)[0]


@pytest.mark.parametrize("arguments", [["pipe"], ["pipe", "--text"], ["pipe", "--json"]])
def test_no_commands_give_no_reports(arguments, tmp_path):
    run = ferrox_run(*arguments, cwd=tmp_path)

    assert run.returncode == 0
    assert run.stderr == b""
    assert json.loads(run.stdout)["commands"] == 0 if "--json" in arguments else run.stdout == b""


def test_a_peer_that_waits_for_each_answer_gets_it(tmp_path):
    with ferrox_start("pipe", cwd=tmp_path) as process:
        answers = b""
        for line in LINES:
            process.stdin.write(parse_command(line))
            while True:
                report = receive(process, 48)
                answers += report
                if report[47] & 0x80:
                    break
        process.stdin.close()
        rest, complaints = process.stdout.read(), process.stderr.read()

    assert (process.returncode, rest, complaints) == (0, b"", b"")
    assert answers == answers_of([parse_command(line) for line in LINES])[0]


def test_a_peer_that_sends_a_byte_at_a_time_is_answered_when_a_frame_is_whole(tmp_path):
    frames = [parse_command(line) for line in LINES]
    with ferrox_start("pipe", cwd=tmp_path) as process:
        for byte in b"".join(frames):
            process.stdin.write(bytes([byte]))
        process.stdin.close()
        answers = process.stdout.read()
        complaints = process.stderr.read()

    assert (process.returncode, complaints) == (0, b"")
    assert answers == answers_of(frames)[0]


def receive(process, size):
    data = b""
    while len(data) < size:
        ready, _, _ = select.select([process.stdout], [], [], 30)
        assert ready, "the peer waits, and nothing comes"
        chunk = os.read(process.stdout.fileno(), size - len(data))
        assert chunk, "the engine left"
        data += chunk
    return data


@pytest.mark.parametrize("kind", [0, 8, 9, 253, 254, 255])
def test_an_unknown_kind_ends_the_stream_after_everything_before_it_was_answered(kind, tmp_path):
    frames = [parse_command(line) for line in LINES]

    run = ferrox_run("pipe", cwd=tmp_path, stdin=b"".join(frames) + bytes([kind]) + b"more")

    (line,) = run.stderr.decode().splitlines()
    assert run.returncode == 3
    assert run.stdout == answers_of(frames)[0]
    assert f"offset {sum(map(len, frames))}, after 6 commands" in line
    assert f"found {kind};" in line
    assert "WIRE-6" in line


@pytest.mark.parametrize("left", [1, 15])
def test_a_frame_that_is_cut_off_is_told_after_everything_before_it_was_answered(left, tmp_path):
    frames = [parse_command(line) for line in LINES]

    run = ferrox_run("pipe", cwd=tmp_path, stdin=b"".join(frames)[:-left])

    (line,) = run.stderr.decode().splitlines()
    assert run.returncode == 3
    assert run.stdout == answers_of(frames[:-1])[0]
    assert f"expected a frame of 16 bytes, found the end of the input after {16 - left}" in line


def test_a_bad_frame_is_a_reject_and_no_error(tmp_path):
    run = ferrox_run("pipe", cwd=tmp_path, stdin=b"\x01" + bytes(31))

    assert run.returncode == 0
    assert text_of(run.stdout) == ["rejected #0 bad-side"]


def test_text_answers_lines_with_lines(tmp_path):
    stdin = "\n".join(["# a comment", "", *LINES]).encode()  # the last line has no end

    run = ferrox_run("pipe", "--text", cwd=tmp_path, stdin=stdin)

    assert run.returncode == 0
    assert run.stdout.decode().splitlines() == text_of(answers_of([parse_command(line) for line in LINES])[0])


def test_a_dot_ends_the_answer_to_each_line(tmp_path):
    with ferrox_start("pipe", "--text", "--end", cwd=tmp_path) as process:
        answers = []
        for line in [*LINES, "nonsense", "raw " + "fe" * 16]:
            process.stdin.write(f"{line}\r\n".encode())
            answer = b""
            while not (b"\n" + answer).endswith(b"\n.\n"):
                answer += receive(process, 1)
            answers.append(answer.decode().splitlines()[:-1])
        process.stdin.close()
        complaints = process.stderr.read().decode()

    assert process.returncode == 3
    assert answers[3] == ["new #3 15 @ 101", "trade #3 10 @ 100 with #1 leaves 5", "trade #3 5 @ 101 with #2"]
    assert answers[-2] == []
    assert answers[-1][0].startswith("rejected #")
    assert answers[-1][0].endswith("unknown-kind on 4278124286")
    assert "line 7: 'nonsense' stands where" in complaints


def test_a_line_that_is_no_command_is_told_and_takes_no_sequence_number(tmp_path):
    stdin = f"{DEFINE}\nbuy #1 ten @ 5\nbuy #1 10 @ 5".encode()

    run = ferrox_run("pipe", "--text", cwd=tmp_path, stdin=stdin)
    value = ferrox_json("pipe", "--text", cwd=tmp_path, stdin=stdin, status=3)

    assert run.returncode == 3
    assert run.stdout.decode().splitlines()[-1] == "new #1 10 @ 5"
    assert "line 2: 'ten' stands where a quantity" in run.stderr.decode()
    assert (value["last_sequence"], value["bad_lines"]) == (2, 1)


@pytest.mark.parametrize(
    "garbage", [os.urandom(200_000), b"\0" * 100_000, b"a\n" * 50_000, b"buy #1 1 @ " + b"9" * 70_000]
)
def test_garbage_as_text_is_given_up_after_a_while(garbage, tmp_path):
    run = ferrox_run("pipe", "--text", cwd=tmp_path, stdin=garbage)

    lines = run.stderr.decode().splitlines()
    assert run.returncode == 3
    assert run.stdout == b""
    assert 1 <= len(lines) <= 21
    assert all(line.startswith("ferrox: ") and len(line) < 600 for line in lines)


def test_json_counts_and_digests_a_stream_and_gives_its_reports_to_a_file(tmp_path):
    frames = frames_of_flow(3000)

    value = ferrox_json("pipe", "--reports", "r.bin", cwd=tmp_path, stdin=b"".join(frames))

    reports, engine = answers_of(frames)
    assert (tmp_path / "r.bin").read_bytes() == reports
    assert value["commands"] == 3000
    assert value["reports"] == len(reports) // 48
    assert value["reports_digest"] == hashlib.sha256(reports).hexdigest()
    assert value["state_digest"] == hashlib.sha256(engine.snapshot()).hexdigest()


def test_the_reports_before_a_damaged_frame_are_kept_in_the_file(tmp_path):
    run = ferrox_run("pipe", "--reports", "r.bin", cwd=tmp_path, stdin=frames_of(LINES) + b"\x09")

    assert run.returncode == 3
    assert (tmp_path / "r.bin").read_bytes() == answers_of([parse_command(line) for line in LINES])[0]


def test_the_capacity_is_an_option(tmp_path):
    stdin = f"{DEFINE}\nbuy #1 1 @ 5\nbuy #2 1 @ 5".encode()

    run = ferrox_run("pipe", "--text", "--orders", "1", cwd=tmp_path, stdin=stdin)

    assert run.stdout.decode().splitlines()[-1] == "rejected #2 orders-full"


def test_a_reader_that_goes_away_ends_the_pipe_in_silence(tmp_path):
    process = ferrox_start("pipe", "--text", cwd=tmp_path)
    with process:
        process.stdout.close()
        process.stdin.write(f"{DEFINE}\n".encode())
        complaints = process.stderr.read()

    assert (process.returncode, complaints) == (128 + signal.SIGPIPE, b"")


def test_an_interrupt_while_it_waits_is_one_line(tmp_path):
    process = ferrox_start("pipe", "--text", cwd=tmp_path)
    process.stdin.write(f"{DEFINE}\n".encode())
    receive(process, 1)

    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=30)

    assert (process.returncode, complaints) == (130, b"ferrox: interrupted\n")


def test_a_closed_standard_input_is_one_line(tmp_path):
    run = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m ferrox pipe <&-"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=False,
    )

    assert (run.returncode, run.stdout, run.stderr) == (2, b"", b"ferrox: standard input: Bad file descriptor\n")


@pytest.mark.parametrize("options", [[], ["--syncer"], ["--durability", "D1"], ["--durability", "D2", "--syncer"]])
def test_a_pipe_with_a_journal_answers_as_one_without_and_keeps_every_command(options, tmp_path):
    """JRN-22."""
    frames = frames_of_flow(1000)

    plain = ferrox_run("pipe", stdin=b"".join(frames), cwd=tmp_path)
    kept = ferrox_run("pipe", "--journal", "kept", *options, stdin=b"".join(frames), cwd=tmp_path)

    assert kept.stdout == plain.stdout
    assert ferrox_json("verify", "kept", cwd=tmp_path)["verdict"] == "clean"
    assert scan(tmp_path / "kept").last == 1001


def test_what_a_killed_pipe_has_answered_is_there_and_is_gone_on_with(tmp_path):
    """JRN-22: kill -9 after each of some answers, and the next call goes on."""
    frames = frames_of_flow(500)
    answers, sent = b"", 0
    for share in (0.2, 0.5, 0.9):
        process = ferrox_start("pipe", "--journal", "kept", cwd=tmp_path)
        upto = int(len(frames) * share)
        process.stdin.write(b"".join(frames[sent:upto]))
        process.stdin.flush()
        answers += receive(process, len(answers_of(frames[:upto])[0]) - len(answers))
        process.kill()
        process.communicate()
        sent = upto
    last = ferrox_run("pipe", "--journal", "kept", stdin=b"".join(frames[sent:]), cwd=tmp_path)

    assert answers + last.stdout == answers_of(frames)[0]
    assert b"going on behind sequence 450" in last.stderr


def test_a_damaged_journal_is_refused_before_anything_is_answered(tmp_path):
    ferrox_run("pipe", "--journal", "kept", stdin=b"".join(frames_of_flow(100)), cwd=tmp_path)
    segment = next((tmp_path / "kept").glob("*.wal"))
    data = bytearray(segment.read_bytes())
    data[5000] ^= 1
    segment.write_bytes(data)

    refused = ferrox_run("pipe", "--journal", "kept", stdin=b"", cwd=tmp_path)

    assert (refused.returncode, refused.stdout) == (3, b"")
    assert b"offset 4992, sequence 15: expected checksum" in refused.stderr


def test_a_journal_that_another_process_writes_is_told(tmp_path):
    process = ferrox_start("pipe", "--journal", "kept", cwd=tmp_path)
    process.stdin.write(b"".join(frames_of_flow(1)))
    process.stdin.flush()
    receive(process, 48)

    second = ferrox_run("pipe", "--journal", "kept", stdin=b"", cwd=tmp_path)

    assert second.returncode == 2
    assert b"another process has this journal open" in second.stderr
    process.communicate()


def test_options_of_a_journal_need_one(tmp_path):
    assert ferrox_run("pipe", "--durability", "D1", stdin=b"", cwd=tmp_path).returncode == 2
    assert ferrox_run("pipe", "--syncer", stdin=b"", cwd=tmp_path).returncode == 2
