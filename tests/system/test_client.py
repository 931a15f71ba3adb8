"""The clients of order entry against a gateway written from specs/entry.md alone, over a real socket."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ferrox.client import (
    Answered,
    AsyncClient,
    Client,
    ConnectionLost,
    EndOfSession,
    LoginRefused,
    NotConnected,
    Refused,
    Sequenced,
    SessionChanged,
    Unanswered,
)
from ferrox.client.errors import ClientError
from ferrox.messages import CancelOrder, NewOrder, unpack_reports
from ferrox.terms import ReportKind, Scope, compose_order_id
from ferrox.users import User, write_users
from tests.system.entry_server import EntryServer

NEW, TRADE, CANCELED, REPLACED, EXPIRED, REJECTED, CANCEL_REJECTED, REPLACE_REJECTED, MASS_CANCELED, *_ = ReportKind

USERS = {
    user.name: user
    for user in (
        User("maker", 7, b"m" * 32),
        User("taker", 8, b"t" * 32),
        User("operator", 0, b"o" * 32, "operator"),
    )
}


@pytest.fixture
def server():
    with EntryServer(USERS) as server:
        with connect(server, "operator") as operator:
            assert kinds(operator.wait(operator.define(1, band=(0, 1000)), 5)) == [ReportKind.INSTRUMENT_DEFINED]
            operator.wait(operator.define(2, band=(0, 1000)), 5)
        yield server


def connect(server, user, **options):
    return Client("127.0.0.1", server.port, user=user, secret=USERS[user].secret, **options)


def async_client(server, user, **options):
    return AsyncClient("127.0.0.1", server.port, user=user, secret=USERS[user].secret, **options)


def kinds(reports):
    return [report.kind for report in reports]


def reports_of(events):
    return [event.report for event in events if isinstance(event, Sequenced)]


# ------------------------------------------------------------------------------------------------------- answers


def test_each_command_is_answered_with_its_own_reports(server):
    """ENTRY-10, ENTRY-13: references name commands and orders, and every command is answered."""
    with connect(server, "maker") as maker:
        first = maker.buy(10, 100)
        second = maker.new("sell", 5, 110, post_only=True)
        third = maker.replace(first, "buy", 12, 101)
        fourth = maker.cancel(second)
        fifth = maker.cancel(second)
        sixth = maker.sell(4, time_in_force="ioc")
        seventh = maker.mass_cancel()

        answers = [maker.wait(reference, 5) for reference in (first, second, third, fourth, fifth, sixth, seventh)]

        assert list(map(kinds, answers)) == [
            [NEW],
            [NEW],
            [REPLACED],
            [CANCELED],
            [CANCEL_REJECTED],
            [NEW, TRADE],
            [CANCELED, MASS_CANCELED],
        ]
        assert answers[0][0].order_id == compose_order_id(7, first)
        assert [answers[2][0].quantity, answers[2][0].price] == [12, 101]
        assert maker.waiting == []


def test_a_trade_with_our_resting_order_is_an_event_and_no_answer(server):
    """ENTRY-7: the maker of a trade is sent it, although the order of the report is the taker's."""
    with connect(server, "maker") as maker, connect(server, "taker") as taker:
        resting = maker.buy(10, 100)
        maker.wait(resting, 5)
        waiting = maker.sell(1, 500)

        taken = taker.wait(taker.sell(4, 100), 5)

        assert kinds(taken) == [NEW, TRADE]
        assert kinds(maker.wait(waiting, 5)) == [NEW]
        (fill,) = reports_of(maker.events(0.3))
        assert (fill.contra_id, fill.quantity, fill.last) == (compose_order_id(7, resting), 4, True)


def test_an_operators_mass_cancel_is_an_event_and_no_answer(server):
    with connect(server, "maker") as maker, connect(server, "operator") as operator:
        maker.wait(maker.buy(10, 100), 5)
        answer = operator.wait(operator.mass_cancel(instrument=1), 5)

        assert answer[-1].kind == MASS_CANCELED
        assert answer[-1].side == Scope.INSTRUMENT
        (canceled,) = reports_of(maker.events(0.3))
        assert canceled.kind == CANCELED
        assert kinds(maker.wait(maker.mass_cancel(instrument=1), 5)) == [MASS_CANCELED]


def test_a_self_trade_is_within_the_answer(server):
    with connect(server, "maker") as maker:
        maker.sell(5, 100)
        maker.sell(5, 101)
        allowed = maker.wait(maker.buy(2, 100), 5)
        stopped = maker.wait(maker.buy(9, 101, self_trade="cancel-both"), 5)

        assert kinds(allowed) == [NEW, TRADE]
        assert kinds(stopped) == [NEW, CANCELED, CANCELED]
        assert [kinds(event.reports) for event in maker.events(0)] == [[NEW], [NEW]]


def test_what_the_gateway_refuses_is_an_answer(server):
    """ENTRY-12, ENTRY-13, ENTRY-14: a refusal takes no sequence number, and its reference is spent."""
    server.refuse = lambda _account, reference, _frame: 129 if reference == 2 else 0
    with connect(server, "maker") as maker:
        taken = [maker.buy(1, 100), maker.buy(1, 100), maker.buy(0, 100), maker.set_state(1, "halted"), maker.buy(1, 9)]

        answers = [maker.wait(reference, 5) for reference in taken]

        assert [answer.reason if isinstance(answer, Refused) else kinds(answer) for answer in answers] == [
            [NEW],
            129,
            9,
            132,
            [NEW],
        ]
        assert server.references[7] == 5


def test_many_commands_go_out_together_and_are_answered_in_order(server):
    with connect(server, "maker") as maker:
        references = maker.send_many(NewOrder(1, 1, 0, 1, 0, 100, 1) for _ in range(3000))
        references += maker.send_many(CancelOrder(1, reference) for reference in references)

        answers = [next(events) for events in [maker.events(10)] for _ in references]

        assert [event.reference for event in answers] == references == list(range(1, 6001))
        assert {tuple(kinds(event.reports)) for event in answers[:3000]} == {(NEW,)}
        assert {tuple(kinds(event.reports)) for event in answers[3000:]} == {(CANCELED,)}


def test_an_operator_defines_and_halts(server):
    """ENTRY-12: other commands are the operator's, who enters no orders."""
    with connect(server, "operator") as operator:
        halted = operator.set_state(1, "halted")
        unknown = operator.set_state(9, "halted")
        order = operator.buy(1, 1)
        venue = operator.mass_cancel()

        assert kinds(operator.wait(halted, 5)) == [ReportKind.STATE_CHANGED]
        assert kinds(operator.wait(unknown, 5)) == [REJECTED]
        assert isinstance(operator.wait(order, 5), Refused)
        assert kinds(operator.wait(venue, 5)) == [MASS_CANCELED]


def test_a_reference_that_waits_for_nothing_says_so(server):
    with connect(server, "maker") as maker:
        reference = maker.buy(1, 100)
        maker.wait(reference, 5)

        with pytest.raises(ClientError, match="waits for no answer"):
            maker.wait(reference)


def test_waiting_ends_in_time(server):
    with connect(server, "maker") as maker:
        reference = maker.buy(1, 100)
        maker.wait(reference, 5)
        server.lock.acquire()
        late = maker.buy(1, 101)
        try:
            with pytest.raises(TimeoutError, match=r"reference 2 was not answered within 0\.1 s"):
                maker.wait(late, 0.1)
        finally:
            server.lock.release()

        assert kinds(maker.wait(late, 5)) == [NEW]


# ---------------------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("A", {"user": "nobody"}),
        ("A", {"secret": b"x" * 32}),
        ("S", {"session": "F999999999"}),
        ("N", {"number": 99}),
    ],
)
def test_a_login_that_is_rejected_says_why(server, reason, options):
    """ENTRY-3, ENTRY-4."""
    with pytest.raises(LoginRefused) as refused:
        Client("127.0.0.1", server.port, **{"user": "maker", "secret": USERS["maker"].secret} | options)

    assert refused.value.reason == reason
    assert isinstance(refused.value, SessionChanged) == (reason == "S")


def test_a_user_has_one_connection(server):
    """ENTRY-6."""
    with connect(server, "maker"), pytest.raises(LoginRefused, match="logged in on another connection"):
        connect(server, "maker")


def test_heartbeats_go_both_ways_while_waiting():
    with EntryServer(USERS, heartbeat_ms=50, timeout_ms=700) as server, connect(server, "maker") as maker:
        assert list(maker.events(0.5)) == []
        assert server.heartbeats >= 5

        server.silent = True
        with pytest.raises(ConnectionLost, match="nothing was heard"):
            list(maker.events(5))
        with pytest.raises(NotConnected):
            maker.buy(1, 1)


def test_the_end_of_the_session_is_an_event(server):
    maker = connect(server, "maker")
    maker.wait(maker.buy(1, 100), 5)
    maker.close()

    assert list(maker) == [EndOfSession()]


def test_a_secret_may_stand_in_a_file(server, tmp_path):
    path = tmp_path / "users"
    write_users(path, USERS)

    with Client("127.0.0.1", server.port, user="maker", secret=path) as maker:
        assert maker.account == 7


def test_another_process_goes_on_by_session_and_number(server):
    """ENTRY-8: all reports from a number on, and the references go on above the last one taken."""
    with connect(server, "maker") as maker:
        maker.wait(maker.buy(10, 100), 5)
        session, number = maker.session, maker.number
    with connect(server, "taker") as taker:
        taker.wait(taker.sell(4, 100), 5)

    with connect(server, "maker", session=session, number=number) as maker:
        (fill,) = reports_of(maker.events(0.3))

        assert (fill.kind, fill.quantity) == (TRADE, 4)
        assert maker.buy(1, 99) == 2


# ---------------------------------------------------------------------------------------------------- exactly once


def cut_once(server, moment, count):
    """Cut the maker's connection once, at a command of this reference or after so many reports."""
    left = [1]

    def cut(at, account, number):
        if (at, account, number) == (moment, 7, count) and left:
            left.clear()
            return True
        return False

    server.cut = cut


@pytest.mark.parametrize("moment", ["came", "taken", "report"])
@pytest.mark.parametrize("count", range(1, 9))
def test_every_command_is_carried_out_once_wherever_the_connection_is_cut(server, moment, count):
    """ENTRY-8, ENTRY-9: no report is missed or told twice, no command is lost or carried out twice."""
    cut_once(server, moment, count)
    maker = connect(server, "maker")
    events = []
    program = [
        lambda: maker.buy(10, 100),
        lambda: maker.sell(5, 110),
        lambda: maker.sell(3, 100),
        lambda: maker.cancel(2),
        lambda: maker.replace(1, "buy", 9, 99),
        maker.mass_cancel,
        lambda: maker.buy(1, 50),
        lambda: maker.cancel(7),
    ]
    sent = 0
    for _ in range(5):
        try:
            while sent < len(program):
                sent += 1  # a command that fails on its way is kept
                program[sent - 1]()
            while maker.waiting:
                events.append(next(maker.events(5)))
        except ConnectionLost:
            maker.reconnect()
        else:
            break
    events += maker.events(0.1)
    maker.close()

    answers = [event for event in events if isinstance(event, Answered)]
    assert [answer.reference for answer in answers] == list(range(1, 9))
    assert list(map(kinds, (answer.reports for answer in answers))) == [
        [NEW],
        [NEW],
        [NEW, TRADE],
        [CANCELED],
        [REPLACED],
        [CANCELED, MASS_CANCELED],
        [NEW],
        [CANCELED],
    ]
    assert [reference for account, reference, _ in server.commands if account == 7] == list(range(1, 9))
    mine = [report for report in unpack_reports(b"".join(server.log)) if report.order_id >> 40 == 7]
    assert [report for answer in answers for report in answer.reports] == mine


@pytest.mark.parametrize("seed", range(11, 15))
def test_random_flows_with_random_cuts_lose_nothing(server, seed):
    """ENTRY-8, ENTRY-9, ENTRY-13: whatever happens, each command has one answer, and the reports are the venue's."""
    chance = random.Random(seed)
    server.cut = lambda _moment, account, _count: account == 7 and chance.random() < 0.02
    server.refuse = lambda account, _reference, _frame: 129 if account == 7 and chance.random() < 0.05 else 0
    maker, taker = connect(server, "maker"), connect(server, "taker")
    events, sent = [], 0
    while sent < 400 or maker.waiting:
        try:
            if sent < 400:
                sent += 1
                act(maker, chance, sent)
                if chance.random() < 0.3:
                    taker.wait(taker.new(chance.choice(["buy", "sell"]), 2, 100, time_in_force="ioc"), 5)
            maker.poll()
            events += maker.events(0 if sent < 400 else 0.5)
            if sent >= 400 and maker.waiting:
                sent += 1
                maker.buy(1, 1)  # tells of what was refused last, if the refusal was lost; and may be refused itself
        except ConnectionLost:
            come_back(maker)
    server.cut = lambda *_moment: False
    events += maker.events(0.2)
    maker.close()
    taker.close()

    ends = [event.reference for event in events if isinstance(event, (Answered, Refused, Unanswered))]
    assert sorted(ends) == list(range(1, sent + 1))
    taken = {reference for account, reference, _ in server.commands if account == 7}
    assert {event.reference for event in events if isinstance(event, Answered)} <= taken
    lost = [event for event in events if isinstance(event, Unanswered) and event.taken is False]
    assert not {event.reference for event in lost} & taken
    told = [report for event in events for report in numbered(event)]
    mine = [
        report
        for report in unpack_reports(b"".join(server.log))
        if 7 in (report.order_id >> 40, report.contra_id >> 40)
    ]
    assert told == mine


def come_back(client):
    """Reconnect, even where the new connection is cut among the reports that were missed."""
    for _ in range(20):
        try:
            client.reconnect()
        except ConnectionLost:
            continue
        return
    pytest.fail("20 connections in a row were cut")


def numbered(event):
    if isinstance(event, Sequenced):
        return [event.report]
    if isinstance(event, Answered):  # those of a mass cancel were events before
        return [report for report in event.reports if report.reason != 65]
    return []


def act(maker, chance, sent):
    choice = chance.random()
    if choice < 0.6:
        maker.new(chance.choice(["buy", "sell"]), chance.randrange(1, 9), chance.randrange(98, 103))
    elif choice < 0.8:
        maker.cancel(sent)  # of no order: each command is another
    elif choice < 0.95:
        maker.replace(chance.randrange(1, sent + 1), "buy", chance.randrange(1, 9), 97)
    else:
        maker.mass_cancel()


def test_cancel_on_disconnect_is_told_to_who_comes_back_and_taken_for_no_answer(server):
    """ENTRY-15."""
    maker = connect(server, "maker", cancel_on_disconnect=True)
    maker.wait(maker.buy(10, 100), 5)
    cut_once(server, "came", 2)
    reference = maker.mass_cancel(instrument=1)
    second = maker.mass_cancel()
    with pytest.raises(ConnectionLost):
        maker.wait(reference, 5)

    maker.reconnect()

    assert kinds(maker.wait(reference, 5)) == [MASS_CANCELED]
    assert [report.quantity for report in maker.wait(second, 5)] == [0]
    assert kinds(reports_of(maker.events(0.2))) == [CANCELED, MASS_CANCELED]
    maker.close()


def test_what_was_not_taken_is_not_sent_again_where_that_is_not_wanted(server):
    cut_once(server, "came", 2)
    with connect(server, "maker") as maker:
        references = [maker.buy(1, 100), maker.buy(1, 101)]
        with pytest.raises(ConnectionLost):
            maker.wait(references[1], 5)

        maker.reconnect(resend=False)

        answer = maker.wait(references[1], 5)
        assert isinstance(answer, Unanswered)
        assert answer.taken is False
        assert maker.buy(1, 102) == 3


def test_a_new_session_is_an_error_until_it_is_wanted(server):
    """FEED-8, ENTRY-4."""
    cut_once(server, "taken", 1)
    with connect(server, "maker") as maker:
        reference = maker.buy(1, 100)
        with pytest.raises(ConnectionLost):
            maker.wait(reference, 5)
        server.session = b"F000000002"
        with pytest.raises(SessionChanged, match="fresh=True"):
            maker.reconnect()

        accepted = maker.reconnect(fresh=True)

        assert (accepted.session, accepted.reference) == ("F000000002", 1)
        assert maker.wait(reference) == Unanswered(1, NewOrder(1, 1, 0, 1, 1, 100, 1), taken=True)


# --------------------------------------------------------------------------------------------------------- asyncio


def test_an_asyncio_client_awaits_answers_and_iterates_over_the_rest(server):
    async def scene():
        async with async_client(server, "maker") as maker, async_client(server, "taker") as taker:
            answers = [maker.sell(5, 100 + level) for level in range(3)]
            assert [answer.reference for answer in answers] == [1, 2, 3]
            assert list(map(kinds, await asyncio.gather(*answers))) == [[NEW]] * 3
            assert kinds(await taker.buy(7, 101)) == [NEW, TRADE, TRADE]
            events = maker.events()
            fills = [(await anext(events)).report for _ in range(2)]
            assert [(fill.quantity, fill.price) for fill in fills] == [(5, 100), (2, 101)]
            assert isinstance(await maker.buy(0, 1), Refused)
            assert kinds(await maker.mass_cancel()) == [CANCELED, CANCELED, MASS_CANCELED]

    asyncio.run(scene())


def test_an_asyncio_client_comes_back_by_itself_and_answers_what_waits(server):
    """ENTRY-8, ENTRY-9."""

    async def scene():
        async with async_client(server, "maker", backoff=0.01) as maker:
            for moment, reference in (("came", 2), ("taken", 4), ("came", 5)):
                cut_once(server, moment, reference)
                answers = [maker.buy(1, 100 + reference), maker.cancel(reference)] if maker.connected else []
                done = [await asyncio.wait_for(answer, 5) for answer in answers]
                assert done
                assert all(isinstance(answer, list) for answer in done)
        assert [reference for account, reference, _ in server.commands if account == 7] == list(range(1, 7))

    asyncio.run(scene())


def test_without_backoff_an_asyncio_client_says_that_the_connection_is_lost(server):
    async def scene():
        cut_once(server, "taken", 1)
        maker = async_client(server, "maker")
        await maker.connect()
        with pytest.raises(ConnectionLost):
            await maker.buy(1, 100)
        with pytest.raises(ConnectionLost):
            await anext(maker.events())
        with pytest.raises(NotConnected):
            maker.buy(1, 100)
        await maker.reconnect()
        event = await asyncio.wait_for(anext(maker.events()), 5)
        assert isinstance(event, Answered)
        assert (event.reference, kinds(event.reports)) == (1, [NEW])
        await maker.close()

    asyncio.run(scene())


def test_an_asyncio_client_beats_in_the_background_and_notices_silence():
    async def scene(server):
        async with async_client(server, "maker") as maker:
            await asyncio.sleep(0.5)
            assert maker.connected
            assert server.heartbeats >= 5
            server.silent = True
            with pytest.raises(ConnectionLost, match="heard"):
                await asyncio.wait_for(anext(maker.events()), 5)

    with EntryServer(USERS, heartbeat_ms=50, timeout_ms=700) as server:
        asyncio.run(scene(server))


def test_an_asyncio_client_is_told_why_a_login_is_rejected(server):
    async def scene():
        with pytest.raises(LoginRefused, match="users file"):
            await AsyncClient("127.0.0.1", server.port, user="maker", secret=b"x" * 32).connect()

    asyncio.run(scene())


def test_nobody_there_is_an_error_that_says_where():
    with EntryServer(USERS) as server:
        port = server.port
    time.sleep(0.01)

    with pytest.raises(ConnectionLost, match=f"127.0.0.1:{port}: no connection"):
        Client("127.0.0.1", port, user="maker", secret=b"m" * 32)


# -------------------------------------------------------------------------------------------------------- examples

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(example, server, users, *options):
    return subprocess.Popen(
        [sys.executable, EXAMPLES / example, "--port", str(server.port), "--users", users, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
    )


def test_the_examples_of_a_maker_and_a_taker_trade_with_each_other(server, tmp_path):
    users = tmp_path / "users"
    write_users(users, USERS)
    maker = start("market_maker.py", server, users)
    with server.lock:
        assert server.lock.wait_for(lambda: "maker" in server.links, 60)
    taker = start("taker.py", server, users, "--orders", "8", "--pause", "0.15")

    shown = {"taker": taker.communicate(timeout=60)}
    maker.send_signal(signal.SIGINT)
    shown["maker"] = maker.communicate(timeout=60)

    assert (maker.returncode, taker.returncode) == (0, 0), shown
    assert [errors for _, errors in shown.values()] == ["", ""]
    assert "quoting 98 / 102, position 0" in shown["maker"][0]
    assert re.search(r"^(bought|sold) \d at \d+$", shown["maker"][0], re.MULTILINE)
    assert re.search(r"^8 orders, [1-9]\d* lots traded$", shown["taker"][0], re.MULTILINE)
