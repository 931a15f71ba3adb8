"""Many datagrams with one call of the kernel: `recvmmsg`, by way of ctypes, because Python has no name for it.

One call brings 64 packets, which is what keeps a receiver in CPython behind a publisher that sends 44 at once.  Where
there is no `recvmmsg`, each packet is a call of its own.
"""

import ctypes
import errno
import os
import socket
from typing import Final

MANY: Final = 64
SIZE: Final = 2048
"""Of the room for each; a packet that is longer is no packet of the feed, and is cut, which makes it wrong."""


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Received(ctypes.Structure):
    _fields_ = (("message", _Message), ("size", ctypes.c_uint32))


class Datagrams:
    """Takes datagrams off sockets that do not block."""

    def __init__(self, *, many: bool = True) -> None:
        """Make room for 64; without `many`, as where the kernel has no such call."""
        self._call = getattr(ctypes.CDLL(None, use_errno=True), "recvmmsg", None) if many else None
        self._room = bytearray(MANY * SIZE)
        self._view = memoryview(self._room)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._room))
        self._vectors = (_Vector * MANY)(*[_Vector(base + place * SIZE, SIZE) for place in range(MANY)])
        self._received = (_Received * MANY)()
        for place in range(MANY):
            message = self._received[place].message
            message.vectors = ctypes.pointer(self._vectors[place])
            message.vector_count = 1

    def take(self, source: socket.socket) -> list[bytes]:
        """Return what has come, at most 64 datagrams."""
        if self._call is None:
            return self._one_by_one(source)
        count = self._call(source.fileno(), self._received, MANY, socket.MSG_DONTWAIT, None)
        if count < 0:
            error = ctypes.get_errno()
            if error == errno.ENOSYS:
                self._call = None
                return self._one_by_one(source)
            if error in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED):
                return []
            raise OSError(error, os.strerror(error))
        view, received = self._view, self._received
        return [bytes(view[place * SIZE : place * SIZE + received[place].size]) for place in range(count)]

    @staticmethod
    def _one_by_one(source: socket.socket) -> list[bytes]:
        packets: list[bytes] = []
        while len(packets) < MANY:
            try:
                packets.append(source.recv(SIZE))
            except (BlockingIOError, ConnectionRefusedError):
                break
        return packets
