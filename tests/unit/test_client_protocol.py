"""The client's side of order entry without a socket, packet by packet."""

import hashlib
import hmac
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrox.client.errors import ConnectionLost, NotConnected, ProtocolBroken
from ferrox.client.protocol import (
    Answered,
    EndOfSession,
    EntryProtocol,
    LoginRejected,
    Phase,
    Sequenced,
    Unanswered,
)
from ferrox.entry import LoginAccepted, Refused, packets
from ferrox.messages import CancelOrder, DefineInstrument, MassCancel, NewOrder, ReplaceOrder, Report, SetTradingState
from ferrox.terms import Reason, ReportFlag, ReportKind, Scope, TradingState

SECRET = b"s" * 32
CHALLENGE = bytes(range(32))
ACCOUNT = 7
OTHER = 8
SECOND = 1_000_000_000
BUY = NewOrder(1, 1, 0, 1, 0, 100, 10)
LAST, AGGRESSOR = int(ReportFlag.LAST), int(ReportFlag.AGGRESSOR)


def packet(letter, payload=b""):
    return struct.pack(">H", 1 + len(payload)) + letter + payload


def challenge(version=1, heartbeat_ms=1000, timeout_ms=5000):
    return packet(b"C", CHALLENGE + struct.pack("<HHI", version, heartbeat_ms, timeout_ms))


def accepted(number=1, reference=0, account=ACCOUNT, session=b"F000000001"):
    return packet(b"A", struct.pack("<10s2xIqq", session, account, number, reference))


def sequenced(number, report):
    return packet(b"S", struct.pack("<q", number) + report.pack())


def refused(reference, reason=129):
    return packet(b"U", struct.pack("<qIBB2x", reference, 1, 1, reason))


def own(reference, account=ACCOUNT):
    return account << 40 | reference


def report(kind, sequence, order_id, *, contra_id=0, price=0, quantity=0, side=0, reason=0, flags=LAST, instrument=1):
    return Report(sequence, order_id, contra_id, price, quantity, 0, instrument, kind, side, reason, flags)


def new(sequence, reference, flags=LAST):
    return report(ReportKind.NEW, sequence, own(reference), flags=flags)


def canceled(sequence, reference, reason=0, flags=LAST):
    return report(ReportKind.CANCELED, sequence, own(reference), reason=reason, flags=flags)


def mass_canceled(sequence, account=ACCOUNT, scope=Scope.ACCOUNT, instrument=0):
    return report(ReportKind.MASS_CANCELED, sequence, account << 40, side=scope, instrument=instrument)


def events_of(protocol, data=b"", now_ns=0):
    protocol.receive(data, now_ns)
    return list(iter(protocol.next_event, None))


def sent(protocol):
    found, rest = packets(protocol.data_to_send(0))
    assert rest == b""
    return found


def active(*, number=1, reference=0, account=ACCOUNT, **options):
    """Return a protocol that is logged in."""
    protocol = EntryProtocol("maker", SECRET, **options)
    protocol.connect(0)
    events_of(protocol, challenge() + accepted(number, reference, account))
    protocol.data_to_send(0)
    return protocol


def again(protocol, *, reference, **options):
    """Lose the connection, and log in once more."""
    protocol.disconnect()
    protocol.connect(0, **options)
    events = events_of(protocol, challenge() + accepted(protocol.number, reference))
    return events, [letter_and_reference for letter_and_reference in sent(protocol) if letter_and_reference[0] == b"U"]


# ----------------------------------------------------------------------------------------------------------- login


def test_a_login_answers_the_challenge():
    """ENTRY-3: the mac is over the challenge and the 40 bytes before it."""
    protocol = EntryProtocol("maker", SECRET, cancel_on_disconnect=True, number=5, session="F000000001")
    protocol.connect(0)

    assert events_of(protocol, challenge()) == []

    ((letter, payload),) = sent(protocol)
    assert letter == b"L"
    assert payload[:40] == struct.pack("<16s10sB5xq", b"maker".ljust(16), b"F000000001", 1, 5)
    assert payload[40:] == hmac.digest(SECRET, CHALLENGE + payload[:40], hashlib.sha256)
    assert events_of(protocol, accepted(5, 3)) == [LoginAccepted("F000000001", ACCOUNT, 5, 3)]
    assert protocol.send(BUY) == 4


def test_a_login_may_be_rejected():
    """ENTRY-4."""
    protocol = EntryProtocol("maker", SECRET)
    protocol.connect(0)

    assert events_of(protocol, challenge() + packet(b"J", b"A")) == [LoginRejected("A")]
    assert protocol.phase == Phase.ENDED


def test_what_no_login_can_carry_raises_at_once():
    for arguments in (("m" * 17, SECRET), ("mäker", SECRET), ("maker", b"short")):
        with pytest.raises(ValueError):
            EntryProtocol(*arguments)
    with pytest.raises(ValueError, match="number -1"):
        EntryProtocol("maker", SECRET, number=-1)
    with pytest.raises(ValueError):
        EntryProtocol("maker", SECRET, session="F" * 11)


SCENE = b"".join(
    [
        challenge(),
        accepted(4, 0),
        packet(b"H"),
        sequenced(4, new(9, 1)),
        refused(2),
        sequenced(6, report(ReportKind.TRADE, 11, own(1, OTHER), contra_id=own(1), flags=LAST | AGGRESSOR)),
        sequenced(7, canceled(12, 1)),
        packet(b"Z"),
    ]
)


def play(pieces):
    """Return what a scene means, however its bytes are cut; the commands go out once logged in."""
    protocol = EntryProtocol("maker", SECRET)
    protocol.connect(0)
    events = []
    for piece in pieces:
        protocol.receive(piece, 0)
        while (event := protocol.next_event()) is not None:
            events.append(event)
            if isinstance(event, LoginAccepted):
                protocol.send(BUY)
                protocol.send(BUY)
                protocol.send(CancelOrder(1, 1))
    return events, protocol.data_to_send(0)


def test_a_stream_means_the_same_wherever_it_is_cut():
    """ENTRY-1: packets have no relation to what a read returns."""
    whole = play([SCENE])
    assert [type(event) for event in whole[0]] == [
        LoginAccepted,
        Answered,
        Refused,
        Sequenced,
        Answered,
        EndOfSession,
    ]

    for cut in range(len(SCENE) + 1):
        assert play([SCENE[:cut], SCENE[cut:]]) == whole
    assert play([SCENE[at : at + 1] for at in range(len(SCENE))]) == whole


@given(st.lists(st.integers(0, len(SCENE)), max_size=12))
def test_a_stream_means_the_same_in_any_pieces(cuts):
    places = [0, *sorted(cuts), len(SCENE)]

    assert play([SCENE[a:b] for a, b in pairwise(places)]) == play([SCENE])


# ---------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\0\0S", "length 0"),
        (b"\x40\0S", "type b'S' and length 16384"),
        (packet(b"X"), "type b'X'"),
        (packet(b"S", bytes(55)), "type b'S' and length 56"),
        (packet(b"U", bytes(24)), "type b'U' and length 25"),
        (packet(b"L", bytes(72)), "type b'L'"),
        (challenge(), "type b'C' in phase ACTIVE"),
        (accepted(), "type b'A' in phase ACTIVE"),
        (packet(b"J", b"A"), "type b'J' in phase ACTIVE"),
        (refused(1), "refuses reference 1"),
        (sequenced(1, new(1, 1)), "answers reference 1, which was not sent"),
        (sequenced(0, canceled(1, 1)), "report 0 came where 1 or later is next"),
    ],
)
def test_a_wrong_packet_breaks_the_connection(data, found):
    protocol = active()

    for _ in range(2):
        with pytest.raises(ProtocolBroken, match=found):
            events_of(protocol, data)
    with pytest.raises(NotConnected):
        protocol.send(BUY)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (accepted(), "type b'A' in phase GREETING"),
        (sequenced(1, new(1, 1)), "type b'S' in phase GREETING"),
        (challenge(version=2), "version 2"),
        (challenge() + refused(1), "type b'U' in phase LOGIN"),
        (challenge() + accepted(5), "reports from 3 on were asked for, and come from 5 on"),
        (challenge() + accepted(3, session=b"F000000002"), "session 'F000000001' was asked for"),
    ],
)
def test_a_wrong_packet_before_the_login_breaks_the_connection(data, found):
    protocol = EntryProtocol("maker", SECRET, number=3, session="F000000001")
    protocol.connect(0)

    with pytest.raises(ProtocolBroken, match=found):
        events_of(protocol, data)


def test_the_events_before_a_wrong_packet_are_told_first():
    protocol = active()
    protocol.send(BUY)
    protocol.receive(sequenced(1, new(1, 1)) + packet(b"?"), 0)

    assert isinstance(protocol.next_event(), Answered)
    with pytest.raises(ProtocolBroken):
        protocol.next_event()


@pytest.mark.parametrize("number", [1, 2])
def test_a_report_told_twice_or_out_of_order_breaks_the_connection(number):
    """ENTRY-8."""
    protocol = active()
    protocol.send(BUY)
    events_of(protocol, sequenced(2, new(5, 1)))

    with pytest.raises(ProtocolBroken, match=f"report {number} came where 3"):
        events_of(protocol, sequenced(number, canceled(6, 1)))


def test_reports_of_a_command_stand_together():
    """REPORT-1, REPORT-2, REPORT-4."""
    protocol = active()
    protocol.send(BUY)
    events_of(protocol, sequenced(1, new(5, 1, flags=0)))

    with pytest.raises(ProtocolBroken, match="before the last report of 5"):
        events_of(protocol, sequenced(2, canceled(6, 1)))


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_but_protocol_broken(data):
    protocol = active()
    try:
        events_of(protocol, data)
    except ProtocolBroken:
        assert protocol.phase == Phase.ENDED


# -------------------------------------------------------------------------------------------------------- commands


def test_commands_go_out_behind_their_references():
    """ENTRY-9, ENTRY-10."""
    protocol = active(reference=41)

    assert [
        protocol.send(BUY),
        protocol.send(CancelOrder(1, own(42))),
        protocol.send(ReplaceOrder(1, 1, 0, 1, 42, 101, 9)),
        protocol.send(MassCancel(Scope.ACCOUNT).pack()),
        protocol.send(BUY, 70),
    ] == [42, 43, 44, 45, 70]

    assert sent(protocol) == [
        (b"U", struct.pack("<q", reference) + command.pack())
        for reference, command in (
            (42, BUY._replace(order_id=42)),
            (43, CancelOrder(1, 42)),
            (44, ReplaceOrder(1, 1, 0, 1, 42, 101, 9)),
            (45, MassCancel(Scope.ACCOUNT)),
            (70, BUY._replace(order_id=70)),
        )
    ]


@pytest.mark.parametrize(
    ("command", "reference", "message"),
    [
        (BUY, 5, "reference 5 is not above 5"),
        (BUY, 2**40, "reference 1099511627776"),
        (BUY._replace(order_id=9), 0, "order id 9 is not the command's reference, 6"),
        (BUY._replace(quantity=2**32), 0, "does not fit its frame"),
        (CancelOrder(1, own(1, OTHER)), 0, "of account 8, and this user's is 7"),
        (CancelOrder(1, 1), 5 + 65_535, "skips more than 65533"),
        (b"123", 0, "16 or 32 bytes"),
    ],
)
def test_what_no_packet_can_say_raises_and_spends_no_reference(command, reference, message):
    protocol = active(reference=5)

    with pytest.raises(ValueError, match=message):
        protocol.send(command, reference)

    assert sent(protocol) == []
    assert protocol.send(BUY) == 6


def test_what_is_no_command_is_a_type_error():
    with pytest.raises(TypeError, match="a command is one of"):
        active().send(5)


def test_references_that_were_skipped_count_from_the_last_that_can_be_taken():
    """ENTRY-11: a command other than NewOrder skips at most 65,533 references."""
    protocol = active()
    assert protocol.send(CancelOrder(1, 1), 65_534) == 65_534
    assert protocol.send(CancelOrder(1, 1), 131_068) == 131_068
    events_of(protocol, refused(65_534) + refused(131_068))

    with pytest.raises(ValueError, match="behind 0, the last that can have been taken"):
        protocol.send(CancelOrder(1, 1))
    assert protocol.send(BUY) == 131_069
    assert protocol.send(CancelOrder(1, 1)) == 131_070


def test_references_that_were_refused_may_be_used_again_after_a_login():
    """ENTRY-14."""
    protocol = active()
    protocol.send(BUY, 70_000)
    events_of(protocol, refused(70_000))

    again(protocol, reference=0)

    assert protocol.send(CancelOrder(1, 1)) == 1


def test_nothing_is_sent_without_a_login():
    protocol = EntryProtocol("maker", SECRET)
    for _ in range(2):
        with pytest.raises(NotConnected, match="phase"):
            protocol.send(BUY)
        protocol.connect(0)
        with pytest.raises(NotConnected):
            protocol.connect(0)
        protocol.disconnect()


# --------------------------------------------------------------------------------------------------------- answers


def ends(events):
    return [(event.reference, len(event.reports)) if isinstance(event, Answered) else event for event in events]


@pytest.mark.parametrize(
    ("command", "reports"),
    [
        (BUY, [new(9, 1)]),
        (BUY, [report(ReportKind.REJECTED, 9, own(1), reason=37)]),
        (
            BUY,
            [
                new(9, 1, 0),
                report(ReportKind.TRADE, 9, own(1), contra_id=own(5, OTHER), flags=AGGRESSOR),
                report(ReportKind.TRADE, 9, own(1), contra_id=own(3), flags=AGGRESSOR),
                report(ReportKind.CANCELED, 9, own(4), contra_id=own(1), reason=Reason.SELF_TRADE, flags=0),
                report(ReportKind.EXPIRED, 9, own(1)),
            ],
        ),
        (CancelOrder(1, 1), [canceled(9, 1)]),
        (CancelOrder(1, 1), [report(ReportKind.CANCEL_REJECTED, 9, own(1), reason=34)]),
        (ReplaceOrder(1, 1, 0, 1, 1, 100, 9), [report(ReportKind.REPLACED, 9, own(1), price=100, quantity=9)]),
        (ReplaceOrder(1, 1, 0, 1, 1, 100, 9), [report(ReportKind.REPLACE_REJECTED, 9, own(1))]),
        (ReplaceOrder(1, 1, 0, 1, 1, 100, 9), [canceled(9, 1, Reason.TOTAL_FILLED)]),
        (
            ReplaceOrder(1, 1, 0, 1, 1, 100, 9),
            [
                report(ReportKind.REPLACED, 9, own(1), price=100, quantity=9, flags=0),
                report(ReportKind.TRADE, 9, own(1), contra_id=own(2, OTHER), flags=LAST | AGGRESSOR),
            ],
        ),
        (MassCancel(Scope.ACCOUNT), [mass_canceled(9)]),
        (MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 1), [report(ReportKind.REJECTED, 9, 0, reason=32)]),
    ],
)
def test_the_answer_to_a_command_is_its_reports_up_to_the_last(command, reports):
    protocol = active()
    protocol.send(command)

    events = events_of(protocol, b"".join(sequenced(number, one) for number, one in enumerate(reports, 1)))

    (answer,) = events
    assert answer == Answered(1, command._replace(order_id=1) if command is BUY else command, len(reports), reports)
    assert answer.accepted == (reports[0].kind not in range(ReportKind.REJECTED, ReportKind.REPLACE_REJECTED + 1))
    assert answer.trades == [one for one in reports if one.kind == ReportKind.TRADE]
    assert protocol.waiting == []


@pytest.mark.parametrize(
    "foreign",
    [
        report(ReportKind.TRADE, 9, own(1, OTHER), contra_id=own(5), flags=LAST | AGGRESSOR),
        report(ReportKind.TRADE, 9, own(1, OTHER), contra_id=own(5), flags=AGGRESSOR),
        canceled(9, 5, Reason.MASS_CANCEL, flags=0),
        mass_canceled(9),
        mass_canceled(9, scope=Scope.ACCOUNT_IN_INSTRUMENT, instrument=1),
    ],
)
@pytest.mark.parametrize("command", [BUY, CancelOrder(1, 5), ReplaceOrder(1, 1, 0, 1, 5, 100, 9)])
def test_what_others_do_to_our_orders_is_no_answer(command, foreign):
    """ENTRY-7: a trade with our resting order, an operator's mass cancel, LAST or not."""
    protocol = active()
    protocol.send(command)

    assert events_of(protocol, sequenced(1, foreign)) == [Sequenced(1, foreign)]
    assert protocol.waiting == [1]


def test_the_orders_of_a_mass_cancel_are_told_at_once_and_again_in_the_answer():
    protocol = active()
    protocol.send(MassCancel(Scope.ACCOUNT))
    first, second = canceled(9, 4, Reason.MASS_CANCEL, 0), canceled(9, 5, Reason.MASS_CANCEL, 0)

    assert events_of(protocol, sequenced(1, first) + sequenced(2, second)) == [
        Sequenced(1, first),
        Sequenced(2, second),
    ]
    (answer,) = events_of(protocol, sequenced(3, mass_canceled(9)))
    assert (answer.reference, answer.reports) == (1, [first, second, mass_canceled(9)])


def test_an_operators_mass_cancel_before_ours_is_not_mixed_with_it():
    protocol = active()
    protocol.send(MassCancel(Scope.ACCOUNT))
    theirs = canceled(8, 4, Reason.MASS_CANCEL, 0)  # of a venue: its MASS_CANCELED is no account's

    events = events_of(protocol, sequenced(1, theirs) + sequenced(5, mass_canceled(9)))

    assert events == [Sequenced(1, theirs), Answered(1, MassCancel(Scope.ACCOUNT), 5, [mass_canceled(9)])]


def test_a_mass_cancel_of_another_scope_or_instrument_is_no_answer():
    protocol = active()
    protocol.send(MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 2))
    others = [mass_canceled(8), mass_canceled(9, scope=Scope.ACCOUNT_IN_INSTRUMENT, instrument=1)]

    assert events_of(protocol, sequenced(1, others[0]) + sequenced(2, others[1])) == [
        Sequenced(1, others[0]),
        Sequenced(2, others[1]),
    ]
    assert ends(
        events_of(protocol, sequenced(3, mass_canceled(10, scope=Scope.ACCOUNT_IN_INSTRUMENT, instrument=2)))
    ) == [(1, 1)]


def test_a_mass_cancel_whose_reject_is_nobodys_is_passed_over():
    """ENTRY-7: a reject with order id 0 is sent to the operator."""
    protocol = active()
    command = MassCancel(Scope.ACCOUNT_IN_INSTRUMENT, 9)
    protocol.send(command)
    protocol.send(BUY)

    assert ends(events_of(protocol, sequenced(1, new(10, 2)))) == [Unanswered(1, command, None), (2, 1)]


def test_an_answer_to_a_later_command_breaks_the_connection():
    protocol = active()
    protocol.send(BUY)
    protocol.send(BUY)

    with pytest.raises(ProtocolBroken, match=r"answers reference 2, which was not sent, or .* not the next"):
        events_of(protocol, sequenced(1, new(9, 2)))


def test_an_operators_commands_are_answered():
    """ENTRY-7, ENTRY-12: the operator is account 0."""
    protocol = active(account=0)
    commands = [
        (DefineInstrument(2, 1, 0, 9, 1, 1), report(ReportKind.INSTRUMENT_DEFINED, 1, 0, side=2)),
        (SetTradingState(TradingState.HALTED, 1), report(ReportKind.STATE_CHANGED, 2, 0, side=3)),
        (SetTradingState(TradingState.HALTED, 9), report(ReportKind.REJECTED, 3, 0, reason=32, instrument=9)),
        (MassCancel(Scope.VENUE), mass_canceled(5, 0, Scope.VENUE)),
        (MassCancel(Scope.ACCOUNT, 0, OTHER), mass_canceled(6, OTHER)),
        (b"\x07\x01\0\0\0\0\0\0" + bytes(24), report(12, 7, 0, instrument=0)),
    ]
    for command, _ in commands:
        protocol.send(command)

    foreign = mass_canceled(4, ACCOUNT)  # a trader's own
    data = b"".join(sequenced(one.sequence, one) for one in sorted([foreign, *(answer for _, answer in commands)]))

    assert ends(events_of(protocol, data)) == [(1, 1), (2, 1), (3, 1), Sequenced(4, foreign), (4, 1), (5, 1), (6, 1)]


# ---------------------------------------------------------------------------------------------------- once and only


def test_what_was_not_taken_is_sent_again_in_order_and_what_was_taken_is_waited_for():
    """ENTRY-8, ENTRY-9."""
    protocol = active()
    for command in (BUY, CancelOrder(1, 1), BUY, MassCancel(Scope.ACCOUNT)):
        protocol.send(command)
    first = sent(protocol)
    events_of(protocol, sequenced(1, new(5, 1)))

    events, sent_again = again(protocol, reference=2)

    assert events == [LoginAccepted("F000000001", ACCOUNT, 2, 2)]
    assert sent_again == first[2:]
    assert protocol.waiting == [2, 3, 4]
    assert protocol.send(BUY) == 5
    data = (
        sequenced(2, canceled(6, 1))
        + sequenced(3, new(7, 3))
        + sequenced(4, mass_canceled(8))
        + sequenced(5, new(9, 5))
    )
    assert ends(events_of(protocol, data)) == [(2, 1), (3, 1), (4, 1), (5, 1)]


def test_an_answer_may_begin_on_one_connection_and_end_on_the_next():
    """ENTRY-8."""
    protocol = active()
    protocol.send(BUY)
    trade = report(ReportKind.TRADE, 5, own(1), contra_id=own(1, OTHER), flags=LAST | AGGRESSOR)
    events_of(protocol, sequenced(1, new(5, 1, flags=0)))

    _, sent_again = again(protocol, reference=1)

    assert sent_again == []
    assert events_of(protocol, sequenced(2, trade)) == [
        Answered(1, BUY._replace(order_id=1), 2, [new(5, 1, flags=0), trade])
    ]


def test_a_refusal_that_was_lost_is_found_by_the_next_answer():
    """ENTRY-13, ENTRY-14: what is below the last reference taken was not taken when a later one is answered first."""
    protocol = active()
    for command in (BUY, CancelOrder(1, 9), BUY):
        protocol.send(command)

    again(protocol, reference=3)

    assert ends(events_of(protocol, sequenced(1, new(5, 3)))) == [
        Unanswered(1, BUY._replace(order_id=1), taken=False),
        Unanswered(2, CancelOrder(1, 9), taken=None),
        (3, 1),
    ]


def test_the_gateways_own_mass_cancel_is_taken_for_no_answer():
    """ENTRY-15: it stands behind all that was taken, and before all that is sent again."""
    protocol = active(cancel_on_disconnect=True)
    protocol.send(BUY)
    protocol.send(MassCancel(Scope.ACCOUNT))
    orders = canceled(6, 1, Reason.MASS_CANCEL, 0)
    _, sent_again = again(protocol, reference=1)
    assert len(sent_again) == 1

    data = (
        sequenced(1, new(5, 1)) + sequenced(2, orders) + sequenced(3, mass_canceled(6)) + sequenced(4, mass_canceled(7))
    )

    assert ends(events_of(protocol, data)) == [(1, 1), Sequenced(2, orders), Sequenced(3, mass_canceled(6)), (2, 1)]


def test_the_gateways_own_mass_cancel_may_be_missing():
    protocol = active(cancel_on_disconnect=True)
    protocol.send(BUY)
    again(protocol, reference=0)

    assert ends(events_of(protocol, sequenced(1, new(5, 1)))) == [(1, 1)]


def test_without_sending_again_what_was_not_taken_is_given_up():
    protocol = active()
    protocol.send(BUY)
    protocol.send(BUY)

    events, sent_again = again(protocol, reference=1, resend=False)

    assert sent_again == []
    assert events[1:] == [Unanswered(2, BUY._replace(order_id=2), taken=False)]
    assert protocol.waiting == [1]


def test_a_fresh_login_gives_up_all_that_waits():
    """FEED-8: in a new session, the reports to come are not those that were missed."""
    protocol = active()
    for _ in range(3):
        protocol.send(BUY)
    begun = new(5, 1, flags=0)
    events_of(protocol, sequenced(1, begun))
    protocol.disconnect()
    protocol.connect(0, fresh=True)
    events_of(protocol, challenge())
    ((_, payload),) = sent(protocol)
    assert payload[16:26] == b" " * 10
    assert payload[32:40] == bytes(8)

    events = events_of(protocol, accepted(90, 2, session=b"F000000002"))

    assert events[1:] == [
        Sequenced(1, begun),
        *(Unanswered(n, BUY._replace(order_id=n), taken=n <= 2) for n in (1, 2, 3)),
    ]
    assert (protocol.waiting, protocol.number, protocol.session) == ([], 90, "F000000002")
    assert protocol.send(BUY) == 4


def test_answers_to_an_earlier_life_are_told_as_they_are():
    protocol = active(number=1, reference=6, session="F000000001")
    protocol.send(BUY)

    assert ends(
        events_of(protocol, sequenced(1, new(5, 6)) + sequenced(2, canceled(6, 6)) + sequenced(3, new(7, 7)))
    ) == [
        Sequenced(1, new(5, 6)),
        Sequenced(2, canceled(6, 6)),
        (7, 1),
    ]


def test_another_account_under_the_same_name_breaks_the_connection():
    protocol = active()
    protocol.disconnect()
    protocol.connect(0)

    with pytest.raises(ProtocolBroken, match="account was 7, and the gateway says now 8"):
        events_of(protocol, challenge() + accepted(1, 0, account=OTHER))


# ------------------------------------------------------------------------------------------------------------- time


def test_who_is_silent_sends_a_heartbeat():
    protocol = active()
    assert protocol.deadline_ns == SECOND

    protocol.tick(SECOND - 1)
    assert sent(protocol) == []
    protocol.tick(SECOND)
    assert protocol.data_to_send(SECOND) == packet(b"R")
    protocol.send(BUY)
    protocol.data_to_send(SECOND + 5)

    assert protocol.deadline_ns == 2 * SECOND + 5


def test_who_hears_nothing_takes_the_connection_for_lost():
    protocol = active()
    events_of(protocol, packet(b"H"), SECOND)
    protocol.tick(6 * SECOND - 1)

    with pytest.raises(ConnectionLost, match="nothing was heard for 5000 ms"):
        protocol.tick(6 * SECOND)
    protocol.tick(7 * SECOND)


def test_a_challenge_that_does_not_come_is_waited_for_ten_seconds():
    protocol = EntryProtocol("maker", SECRET)
    assert protocol.deadline_ns >= 2**33
    protocol.connect(0)
    assert protocol.deadline_ns == 10 * SECOND

    with pytest.raises(ConnectionLost):
        protocol.tick(10 * SECOND)


def test_a_logout_is_answered_by_the_end_of_the_session():
    protocol = active()
    protocol.logout()

    assert sent(protocol) == [(b"O", b"")]
    assert events_of(protocol, packet(b"Z")) == [EndOfSession()]
    assert events_of(protocol, b"anything behind it") == []
