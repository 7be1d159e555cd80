"""VisaLink over VXI-11: to the server that simulated boxes have, and to a session that answers as a test wants it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import test_sources
import test_template
from link_server import block, polite

from drivers.links.block import header, read_block
from drivers.links.visa_link import VisaLink
from drivers.links.vxi11 import Vxi11Wire
from drivers.scpi import Scpi
from hil.conformance import check_instrument
from hil.errors import BadBlock, Desync, DirtySession, Disconnected, LinkTimeout, OpenFailed
from sim_devices.instruments.faults import Fault, Faults
from sim_devices.transports.vxi11 import LARGEST, Vxi11Server


class Answering:
    """A box that answers as `polite` does, and waits when it is asked WAIT? until it is cleared."""

    name = "answering"

    def __init__(self) -> None:
        self.complaints: list[int] = []
        self.waiting, self.cleared = threading.Event(), threading.Event()

    def execute(self, message: Any) -> bytes | None:
        if bytes(message) == b"WAIT?":
            self.waiting.set()
            self.cleared.wait(5)
            return b"late"
        return polite(bytes(message))

    def clear(self) -> None:
        self.cleared.set()

    def status_byte(self) -> int:
        return 0

    def trigger(self) -> None: ...

    def query_error(self, code: int) -> None:
        self.complaints.append(code)


@contextmanager
def served(box: Any, faults: Faults | None = None) -> Iterator[Vxi11Server]:
    server = Vxi11Server(box, faults=faults)
    server.start()
    try:
        yield server
    finally:
        if faults is not None:
            faults.heal()
        server.close()


@contextmanager
def session(box: Any, faults: Faults | None = None, timeout_s: float = 2.0) -> Iterator[Scpi]:
    with served(box, faults) as server:
        opened = Scpi(VisaLink(server.resource, timeout_s=timeout_s, backend="@py"))
        opened.identify()
        yield opened
        opened.close()


# -- Drivers ----------------------------------------------------------------------------------------------------------


class Counted(VisaLink):
    """sent: every message."""

    def __init__(self, resource: str) -> None:
        self.sent: list[bytes] = []
        super().__init__(resource, timeout_s=2.0, backend="@py")

    def write(self, *parts: bytes | memoryview) -> None:
        self.sent.append(b"".join(bytes(part) for part in parts))
        super().write(*parts)


@pytest.fixture
def over_vxi11(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The lists of the other files, with this wire in the place of memory."""
    with ExitStack() as opened:

        def wire(box: Any) -> Counted:
            return Counted(opened.enter_context(served(getattr(box, "box", box))).resource)

        monkeypatch.setattr(test_sources, "MemoryLink", wire)
        monkeypatch.setattr(test_template, "MemoryLink", wire)
        yield


DRIVERS = [*test_sources.EVERY, test_template.G1]  # those of a signal are in test_instrument_conformance.py


@pytest.mark.usefixtures("over_vxi11")
@pytest.mark.parametrize("make", DRIVERS)
def test_drivers_keep_their_contract_over_vxi11(make: Callable[[], Any]) -> None:
    assert check_instrument(make).passed


# -- Replies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, LARGEST - 9, LARGEST - 10, LARGEST, 2 * LARGEST + 1])
def test_blocks_and_texts_both_ways(size: int) -> None:
    with session(Answering()) as scpi:
        assert scpi.ask_block(f"BLOCK? {size}", "u1", size).tobytes() == b"\n" * size
        assert scpi.ask("ECHO? in step") == "in step"
        scpi.link.write(b"DATA ", header(size), bytes(size))
        scpi.send()


def test_a_long_reply_in_many_pieces_has_one_deadline() -> None:
    """PyVISA-py takes the time since the beginning off the timeout at each piece, and gives up after 0.3 s of these 2."""
    faults = Faults("answering")
    with session(Answering(), faults, timeout_s=2.0) as scpi:
        faults.add(Fault("throttle", match="BLOCK", bytes_per_s=5000))
        assert scpi.ask_block("BLOCK? 2000", "u1", 2000).tobytes() == b"\n" * 2000  # 0.4 s, 20 pieces


def test_after_a_timeout_nothing_is_asked_before_the_instrument_is_known_again() -> None:
    box = Answering()
    with session(box, timeout_s=0.1) as scpi:
        with pytest.raises(LinkTimeout):
            scpi.ask("WAIT?")
        with pytest.raises(DirtySession):
            scpi.ask("ECHO? other")
        assert scpi.recover().serial == "SN-1"  # the device clear ends the wait; "late" is taken for nothing
        assert box.cleared.is_set()
        assert scpi.ask("ECHO? other") == "other"
        assert box.complaints == []


def test_a_stale_reply_dies_with_the_clear() -> None:
    faults = Faults("answering")
    with session(Answering(), faults, timeout_s=0.1) as scpi:
        faults.add(Fault("stale", match="ECHO", seconds=0))
        with pytest.raises(LinkTimeout):
            scpi.ask("ECHO? old")
        scpi.recover()
        assert scpi.ask("ECHO? new") == "new"


@pytest.mark.parametrize("fault", [Fault("truncate", match="BLOCK", bytes=90), Fault("pad", match="BLOCK", bytes=4)])
def test_a_damaged_block_is_refused(fault: Fault) -> None:
    faults = Faults("answering")
    with session(Answering(), faults) as scpi:
        faults.add(fault)
        with pytest.raises(BadBlock):
            scpi.ask_block("BLOCK? 100", "u1", 100)
        scpi.recover()
        assert scpi.ask_block("BLOCK? 100", "u1", 100).tobytes() == b"\n" * 100


@pytest.mark.parametrize("kind", ["reset", "half_close"])
def test_a_connection_that_ends_is_noticed_at_once_and_opened_again(kind: str) -> None:
    faults = Faults("answering")
    with session(Answering(), faults) as scpi:
        faults.add(Fault(kind, match="ECHO"))
        scpi.link.timeout_s = 20.0
        began = time.monotonic()
        with pytest.raises(Disconnected):
            scpi.ask("ECHO? a long enough reply")
        assert time.monotonic() - began < 5.0
        scpi.recover()
        assert scpi.ask("ECHO? again") == "again"


def test_another_program_that_has_the_lock_is_named_at_once() -> None:
    with served(Answering()) as server:
        mine, other = (VisaLink(server.resource, timeout_s=1.0, backend="@py") for _ in range(2))
        assert not mine.locked
        assert mine._resource is not None
        mine._resource.lock_excl()
        with pytest.raises(Disconnected, match="locked by another link"):
            other.write(b"*IDN?")
        with pytest.raises(OpenFailed, match="locked"):
            VisaLink(server.resource, backend="@py")
        mine.close()
        other.clear()
        with other.reidentifying():
            other.write(b"*IDN?")
            assert other.read_text().startswith("Hil Works")
        other.close()


def test_a_name_or_a_port_that_is_not_there_is_told() -> None:
    with served(Answering()) as server, pytest.raises(OpenFailed, match="no device of this name"):
        VisaLink(server.resource.replace("inst0", "inst7"), backend="@py")
    with pytest.raises(OpenFailed, match="nobody answers"):
        VisaLink(server.resource, backend="@py")


# -- A session that answers as a test wants it ------------------------------------------------------------------------


@dataclass
class Scripted:
    """PyVISA-py's session and its client in one: each call takes the next answer."""

    answers: list[Any]
    link: int = 1
    max_recv_size: int = 8

    def __post_init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.interface = self

    def _answer(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        return self.answers.pop(0)

    device_write = device_read = device_clear = device_read_stb = _answer


def wire(*answers: Any) -> tuple[Vxi11Wire, Scripted]:
    scripted = Scripted(list(answers))
    return Vxi11Wire(scripted, "test", 1.0), scripted


def test_an_instrument_takes_and_gives_as_much_as_it_likes() -> None:
    pieces = [(0, 0, b""), (0, 1, b"#1"), (0, 0, b"5"), (0, 0, b"ab"), (0, 0, b"cd"), (0, 4, b"e\r\n")]
    link, scripted = wire((0, 8), (0, 3), (0, 5), *pieces)
    link.send([memoryview(b"0123456789"), memoryview(b"abcdef")])
    assert [(call[3], call[4]) for call in scripted.calls] == [(0, b"01234567"), (8, b"89abcdef"), (8, b"bcdef")]
    assert bytes(read_block(link, 1, 10, "test")) == b"abcde"
    assert scripted.answers == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((15, 0, b""), LinkTimeout), ((17, "no answer", ""), LinkTimeout), ((17, 0, b""), Disconnected),
        ((4, 0, b""), Disconnected), ((23, 0, b""), Disconnected), ((0, 0, b"123456789"), Desync),
    ],
)  # fmt: skip
def test_errors_of_a_read(answer: tuple[Any, ...], error: type[Exception]) -> None:
    link, _ = wire(answer)
    with pytest.raises(error):
        link.line()


def test_a_write_that_is_not_taken_is_a_loss() -> None:
    link, _ = wire((0, 3), (0, 0))
    with pytest.raises(Disconnected, match="no more bytes"):
        link.send([memoryview(block(b"abc"))])
    link, _ = wire((15, 0))
    with pytest.raises(LinkTimeout):
        link.send([memoryview(b"*RST")])
