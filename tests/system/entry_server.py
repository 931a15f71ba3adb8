"""A small gateway for tests, written from specs/entry.md alone: the reference engine and a thread for each client.

It checks what ENTRY-9 .. ENTRY-13 say and nothing of risk.md, and cuts connections where a test asks for it.  `refuse`
may name a reason for a command; `cut` is asked at each moment of a command: "came", "taken" and "report" after each
report that was sent.
"""

import hashlib
import hmac
import os
import socket
import struct
import threading
import time
from contextlib import suppress

from ferrox.decode import frame_fault
from ferrox.messages import COMMAND, RECORD, REPORT
from ferrox.reference.engine import ReferenceEngine

LENGTHS = {b"L": (72,), b"U": (24, 40), b"R": (0,), b"O": (0,)}
FRAMES = {1: 32, 2: 16, 3: 32, 4: 16, 5: 32, 6: 16}
DUPLICATE_REFERENCE, BAD_REFERENCE, NOT_PERMITTED = 130, 131, 132


def packet(letter, payload=b""):
    return struct.pack(">H", 1 + len(payload)) + letter + payload


class Cut(Exception):
    """The connection ends here."""


class EntryServer:
    """Users by name; `port` is where it listens."""

    def __init__(self, users, *, heartbeat_ms=500, timeout_ms=5000, session=b"F000000001"):
        self.users, self.session = users, session
        self.heartbeat_ms, self.timeout_ms = heartbeat_ms, timeout_ms
        self.engine, self.sequence = ReferenceEngine(), 0
        self.log = []  # every report, from number 1 on
        self.kept_from = 1
        self.references = {}  # the last one taken, by account
        self.links = {}  # connections by user name
        self.commands = []  # what was taken: account, reference, frame
        self.logins = []
        self.heartbeats = 0
        self.refuse = lambda *_command: 0  # account, reference, frame -> reason
        self.cut = lambda *_moment: False  # moment, account, reference or count of reports
        self.sent = {}  # reports by account
        self.silent = False
        self.lock = threading.Condition(threading.RLock())
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.threads = []
        self.sockets = []
        self.start(self.accept)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for link in self.sockets:
                self.end(link)
        for thread in self.threads:
            thread.join(5)

    def start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self):
        with suppress(OSError):
            while True:
                link = self.listener.accept()[0]
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sockets.append(link)
                self.start(self.serve, link)

    # ------------------------------------------------------------------------------------------------ a connection

    def serve(self, link):
        """ENTRY-5: the challenge, one login, and then commands until the connection ends."""
        user, flags = None, 0
        try:
            challenge = os.urandom(32)
            link.sendall(packet(b"C", challenge + struct.pack("<HHI", 1, self.heartbeat_ms, self.timeout_ms)))
            link.settimeout(self.heartbeat_ms / 2000)
            for letter, payload in self.packets(link):
                if (letter == b"L") == (user is not None):
                    break
                if letter == b"L":
                    user, flags = self.login(link, challenge, payload)
                elif letter == b"U":
                    self.command(link, user, struct.unpack_from("<q", payload)[0], payload[8:])
                elif letter == b"R":
                    self.heartbeats += 1
                else:
                    link.sendall(packet(b"Z"))
                    break
        except (Cut, OSError):
            pass
        finally:
            with self.lock:
                self.end(link)
                if user is not None and self.links.get(user.name) is link:
                    if flags:  # ENTRY-15
                        self.apply(struct.pack("<BBBBIq", 4, 2, 0, 0, 0, user.account))
                    del self.links[user.name]
                    self.lock.notify_all()
                link.close()

    def end(self, link):
        """End a connection; the thread that serves it is the one that closes the socket."""
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)

    def packets(self, link):
        """ENTRY-1, ENTRY-2: whole packets; heartbeats whenever nothing came for a while."""
        data, heard = b"", time.monotonic()
        beat = heard
        while True:
            while len(data) >= 2 and len(data) >= 2 + (size := int.from_bytes(data[:2], "big")):
                letter, payload, data = data[2:3], data[3 : 2 + size], data[2 + size :]
                if not 1 <= size <= 128 or (letter != b"+" and len(payload) not in LENGTHS.get(letter, ())):
                    raise Cut
                if letter != b"+":
                    yield letter, payload
            now = time.monotonic()
            if now - heard > self.timeout_ms / 1000:
                raise Cut
            if now - beat > self.heartbeat_ms / 1000 and not self.silent:
                with self.lock:  # not within a report that another thread sends
                    link.sendall(packet(b"H"))
                beat = now
            with suppress(TimeoutError):
                more = link.recv(4096)
                if not more:
                    raise Cut
                data += more
                heard = time.monotonic()

    def login(self, link, challenge, payload):
        """ENTRY-3, ENTRY-4, ENTRY-6, ENTRY-8."""
        name, session, flags, zeros, number, mac = struct.unpack("<16s10sB5sq32s", payload)
        user = self.users.get(name.decode().rstrip())
        with self.lock:
            self.logins.append((name.decode().rstrip(), session.decode().rstrip(), flags, number))
            expected = hmac.digest(user.secret, challenge + payload[:40], hashlib.sha256) if user else b""
            if user is None or not hmac.compare_digest(mac, expected):
                self.reject(link, b"A")
            if flags > 1 or zeros != bytes(5) or number < 0:
                self.reject(link, b"F")
            if session not in (b" " * 10, self.session):
                self.reject(link, b"S")
            # Who comes back at once is given the time that it takes to see the old connection end.
            if not self.lock.wait_for(lambda: user.name not in self.links, 1):
                self.reject(link, b"U")
            if number and not self.kept_from <= number <= len(self.log) + 1:
                self.reject(link, b"N")
            first = number or len(self.log) + 1
            reference = self.references.get(user.account, 0)
            link.sendall(packet(b"A", struct.pack("<10s2xIqq", self.session, user.account, first, reference)))
            self.links[user.name] = link
            self.lock.notify_all()
            try:
                for place in range(first, len(self.log) + 1):
                    self.send_report(link, user.account, place)
            except (OSError, Cut):
                self.end(link)  # reading finds it ended
        return user, flags

    def reject(self, link, letter):
        link.sendall(packet(b"J", letter))
        raise Cut

    # --------------------------------------------------------------------------------------------------- commands

    def command(self, link, user, reference, frame):
        """ENTRY-9 .. ENTRY-13."""
        with self.lock:
            if self.cut("came", user.account, reference):
                raise Cut
            reason = self.judge(user, reference, frame) or self.refuse(user.account, reference, frame)
            if not reason:
                frame = self.owned(user.account, frame)
                reason = frame_fault(frame)
            if reason:
                _, _, _, _, instrument = struct.unpack_from("<BBBBI", frame)
                link.sendall(packet(b"U", struct.pack("<qIBB2x", reference, instrument, frame[0], reason)))
                return
            self.references[user.account] = reference
            self.commands.append((user.account, reference, frame))
            if self.cut("taken", user.account, reference):
                del self.links[user.name]
                self.apply(frame)
                self.links[user.name] = link
                raise Cut
            self.apply(frame)

    def judge(self, user, reference, frame):
        kind, scope, _, _, _, ident = struct.unpack_from("<BBBBIq", frame)
        last = self.references.get(user.account, 0)
        if not 1 <= reference < 2**40 or (kind == 1 and ident != reference):
            return BAD_REFERENCE
        if reference <= last:
            return DUPLICATE_REFERENCE
        if kind != 1 and reference - last - 1 > 65_533:
            return BAD_REFERENCE
        if user.account == 0:
            return NOT_PERMITTED if kind in (1, 2, 3) else 0
        if kind > 4 or (kind == 4 and (scope not in (2, 3) or ident)):
            return NOT_PERMITTED
        return 0

    def owned(self, account, frame):
        """ENTRY-10, ENTRY-12: the account stands above the reference, and in a mass cancel alone."""
        if account == 0 or frame[0] > 4:
            return frame
        ident = int.from_bytes(frame[8:16], "little")
        ident = account if frame[0] == 4 else account << 40 | ident if 0 < ident < 2**40 else 0
        return frame[:8] + struct.pack("<q", ident) + frame[16:]

    def apply(self, frame):
        """Give a command its sequence number, and its reports theirs (FEED-1)."""
        self.sequence += 1
        kind, size = frame[0], FRAMES.get(frame[0], len(frame))
        fields = COMMAND.unpack(frame.ljust(32, b"\0"))
        _, reports = self.engine.apply(RECORD.pack(0, 0, self.sequence, self.sequence, kind, size, 0, 0, *fields))
        first = len(self.log) + 1
        self.log += [bytes(reports[at : at + 48]) for at in range(0, len(reports), 48)]
        for place in range(first, len(self.log) + 1):
            for name, link in list(self.links.items()):
                try:
                    self.send_report(link, self.users[name].account, place)
                except (OSError, Cut):
                    self.end(link)

    def send_report(self, link, account, number):
        frame = self.log[number - 1]
        if not self.concerns(account, frame):
            return
        link.sendall(packet(b"S", struct.pack("<q", number) + frame))
        self.sent[account] = self.sent.get(account, 0) + 1
        if self.cut("report", account, self.sent[account]):
            raise Cut

    def concerns(self, account, frame):
        """ENTRY-7."""
        _, order_id, contra_id, _, _, _, _, kind, *_ = REPORT.unpack(frame)
        if account == 0:
            return kind >= 9 or order_id == 0
        return order_id >> 40 == account or (kind == 2 and contra_id >> 40 == account)
