"""The strict reader of IEEE 488.2 definite-length blocks: exactly what the header says, or BadBlock."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_server import block

from drivers.links.block import header, read_block
from drivers.links.stream import BenchSocket, SocketStream
from hil.errors import BadBlock, ContractError, Disconnected, HilError, LinkTimeout

LIMIT = 1 << 21


class Message:
    """A reply on a wire that marks the end of a message: the whole of `data` and no more."""

    endings = frozenset({b"", b"\n"})

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        head, self.data = self.data[:count], self.data[count:]
        return head

    def take_rest(self, count: int) -> tuple[memoryview, bytes]:
        return memoryview(bytearray(self.take(count))), self.take(3)

    def glimpse(self, count: int) -> bytes:
        return self.data[: max(count, 0)]


def read(data: bytes, item_bytes: int = 1, limit_bytes: int = LIMIT) -> bytes:
    return bytes(read_block(Message(data), item_bytes, limit_bytes, "test"))


def read_stream(data: bytes, item_bytes: int = 1, then_close: bool = True) -> bytes:
    """`data` through a real byte stream, where only counts and the terminator say where a reply ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    with here, there:
        stream = SocketStream(BenchSocket.adopt(here), b"\n", "test", timeout_s=0.05)
        sender = threading.Thread(target=_say, args=(there, data, then_close))
        sender.start()
        try:
            return bytes(read_block(stream, item_bytes, LIMIT, "test"))
        finally:
            sender.join()


def _say(sock: socket.socket, data: bytes, then_close: bool) -> None:
    sock.sendall(data)
    if then_close:
        sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("size", [0, 1, 2, 9, 10, 4096, 20479, 20480, 20481, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
@pytest.mark.parametrize("fill", [b"\n", b"#", b"\x00"])
def test_sizes_that_others_got_wrong(size: int, fill: bytes) -> None:
    payload = fill * size
    assert read(block(payload) + b"\n") == payload
    assert read_stream(block(payload) + b"\n") == payload


@given(payload=st.binary(max_size=5000))
@settings(max_examples=60, deadline=None)
def test_any_payload_comes_back_whole(payload: bytes) -> None:
    assert header(len(payload)) + payload == block(payload)
    assert read(block(payload) + b"\n") == payload
    assert read(block(payload)) == payload
    assert read_stream(block(payload) + b"\n") == payload


@given(payload=st.binary(max_size=200), zeros=st.integers(0, 3))
def test_a_padded_length_is_legal(payload: bytes, zeros: int) -> None:
    digits = b"0" * zeros + str(len(payload)).encode()
    assert read(b"#%d%s%s\n" % (len(digits), digits, payload)) == payload


@given(garbage=st.binary(min_size=1, max_size=40).filter(lambda g: not g.startswith(b"#")), payload=st.binary(max_size=100))
def test_garbage_before_the_header_is_refused_and_shown(garbage: bytes, payload: bytes) -> None:
    with pytest.raises(BadBlock) as caught:
        read(garbage + block(payload) + b"\n")
    assert (garbage + block(payload) + b"\n")[:32].hex(" ") in caught.value.got


@given(payload=st.binary(min_size=1, max_size=300), data=st.data())
def test_a_short_message_is_refused(payload: bytes, data: st.DataObject) -> None:
    whole = block(payload)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadBlock):
        read(whole[:cut])


@given(payload=st.binary(max_size=300), extra=st.binary(min_size=1, max_size=50).filter(lambda e: e != b"\n"))
@settings(max_examples=60, deadline=None)
def test_whatever_follows_but_the_terminator_is_refused(payload: bytes, extra: bytes) -> None:
    with pytest.raises(BadBlock):
        read(block(payload) + extra)
    with pytest.raises(BadBlock):
        read_stream(block(payload) + (extra if extra[:1] != b"\n" else b"x" + extra))


def test_bytes_after_the_terminator_of_a_stream_are_refused() -> None:
    with pytest.raises(BadBlock):
        read_stream(block(b"abc") + b"\nlate reply\n")


def test_a_silent_stream_is_a_timeout_and_a_closed_one_a_loss() -> None:
    for data in (b"", b"#", b"#3", b"#3100", b"#15abc", block(b"abc")):
        with pytest.raises(LinkTimeout):
            read_stream(data, then_close=False)
        with pytest.raises(Disconnected):
            read_stream(data)


@pytest.mark.parametrize(
    "data", [b"#0abc\n", b"#9\n", b"#2\n1", b"#x12", b"#3+12", b"#2 1a", b"##", b"\n", b"", b"1\n", b"#A5hello"]
)
def test_other_grammars_are_refused(data: bytes) -> None:
    with pytest.raises(BadBlock):
        read(data)


def test_an_indefinite_block_says_what_to_change() -> None:
    with pytest.raises(BadBlock, match="indefinite-length mode"):
        read(b"#0\x01\x02\n")


def test_the_limit_is_checked_before_anything_is_allocated() -> None:
    with pytest.raises(BadBlock, match="999999999 bytes"):
        read(b"#9999999999" + b"x" * 10)


@pytest.mark.parametrize(("item_bytes", "size"), [(2, 5), (4, 6), (8, 4)])
def test_half_items_are_refused(item_bytes: int, size: int) -> None:
    with pytest.raises(BadBlock, match="whole items"):
        read(block(b"x" * size) + b"\n", item_bytes=item_bytes)


def test_payload_is_a_writable_buffer_of_its_own() -> None:
    view = read_block(Message(block(b"ab") + b"\n"), 1, 2, "test")
    view[0] = 0
    assert bytes(view) == b"\x00b"


def test_header_refuses_what_nine_digits_cannot_say() -> None:
    assert header(0) == b"#10"
    assert header(999_999_999) == b"#9999999999"
    for size in (-1, 1_000_000_000):
        with pytest.raises(ContractError):
            header(size)


def test_errors_are_of_the_tree() -> None:
    with pytest.raises(HilError) as caught:
        read(b"hello")
    assert caught.value.where == "test"
    assert caught.value.allowed
    assert caught.value.todo
