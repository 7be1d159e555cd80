"""A pseudo-terminal carries every byte value both ways, unchanged, paced if wanted, and ends when it is closed."""

from __future__ import annotations

import os
import threading
import time

import pytest

from hil.errors import ConfigError
from sim_devices.transports.pty import PtyServer

EVERY_BYTE = bytes(range(256))


class Echo:
    """Sends everything back."""

    name = "echo"

    def __init__(self) -> None:
        self.heard = b""

    def feed(self, data: bytes) -> bytes:
        self.heard += data
        return data


def opened(server: PtyServer) -> int:
    return os.open(server.port, os.O_RDWR | os.O_NOCTTY)


def taken(handle: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(handle, count - len(data))
    return data


def test_every_byte_value_goes_through_both_ways() -> None:
    with PtyServer(Echo()) as server:
        client = opened(server)
        os.write(client, EVERY_BYTE)
        assert taken(client, 256) == EVERY_BYTE
        os.close(client)


def test_a_client_may_come_again() -> None:
    with PtyServer(Echo()) as server:
        for word in (b"first", b"again"):
            client = opened(server)
            os.write(client, word)
            assert taken(client, 5) == word
            os.close(client)


def test_a_client_that_writes_before_it_reads_does_not_lock_the_line() -> None:
    data = EVERY_BYTE * 2000
    with PtyServer(Echo()) as server:
        client = opened(server)

        def write() -> None:
            sent = 0
            while sent < len(data):
                sent += os.write(client, data[sent:])

        thread = threading.Thread(target=write)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        assert taken(client, len(data)) == data
        os.close(client)


def test_a_paced_line_takes_ten_bits_a_byte_each_way() -> None:
    with PtyServer(Echo(), baud=38400) as server:
        client = opened(server)
        start = time.monotonic()
        os.write(client, bytes(500))
        taken(client, 500)
        took = time.monotonic() - start
        os.close(client)
    assert took >= 2 * 500 * 10 / 38400 * 0.95


def test_closing_ends_the_line_for_the_client() -> None:
    server = PtyServer(Echo())
    server.start()
    client = opened(server)
    server.close()
    server.close()
    with pytest.raises(OSError, match="Input/output error"):
        os.write(client, b"x")
    os.close(client)


def test_a_server_that_was_never_started_can_be_closed() -> None:
    PtyServer(Echo()).close()


def test_no_line_is_that_slow() -> None:
    with pytest.raises(ConfigError):
        PtyServer(Echo(), baud=10)
