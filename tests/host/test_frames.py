"""Messages between host and worker, however the bytes of them arrive."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from hil.errors import Desync, Disconnected
from hil.host.frames import BEGIN, LENGTHS, MOST_HEAD, WHOLE, Wire


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Wire]]:
    far, near = socket.socketpair()
    wire = Wire(near)
    yield far, wire
    far.close()
    wire.close()


def message(head: object, body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


@pytest.mark.parametrize("size", [0, 1, BEGIN, WHOLE + 1])
def test_a_message_comes_as_it_was_sent(ends: tuple[socket.socket, Wire], size: int) -> None:
    far, wire = ends
    body = bytes(range(256)) * (size // 256 + 1)
    sent = threading.Thread(target=Wire(far).send, args=({"call": 1}, body[:size]))
    sent.start()
    head, found = wire.receive(time.monotonic() + 10)
    sent.join()
    assert head == {"call": 1}
    assert found == body[:size]
    assert not found.readonly


def test_messages_that_come_together_or_in_pieces_are_told_apart(ends: tuple[socket.socket, Wire]) -> None:
    far, wire = ends
    first, second = message({"call": 1}, b"abc"), message({"call": 2, "long": "x" * 2 * BEGIN}, bytes(2 * BEGIN))
    far.sendall(first + second[:5])
    assert wire.receive()[1] == b"abc"
    later = threading.Timer(0.05, far.sendall, (second[5:] + first,))
    later.start()
    head, body = wire.receive(time.monotonic() + 10)
    assert (head["call"], len(body)) == (2, 2 * BEGIN)
    assert wire.receive() == ({"call": 1}, b"abc")


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (message([1]), Desync),
        (LENGTHS.pack(MOST_HEAD + 1, 0), Desync),
        (LENGTHS.pack(3, 0) + b"abc", Desync),
        (message({}, bytes(9))[:-1], Disconnected),
        (message({})[:-1], Disconnected),
    ],
)
def test_what_is_no_message_is_refused(ends: tuple[socket.socket, Wire], sent: bytes, error: type[Exception]) -> None:
    far, wire = ends
    far.sendall(sent)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(error):
        wire.receive()


def test_what_comes_never_is_waited_for_no_longer_than_was_said(ends: tuple[socket.socket, Wire]) -> None:
    far, wire = ends
    far.sendall(message({}, bytes(9))[:-1])
    with pytest.raises(TimeoutError):
        wire.receive(time.monotonic() + 0.05)
