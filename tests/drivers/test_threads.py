"""Eight threads on one instrument: every answer goes to the thread that asked, over every kind of wire."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from firmware import firmware
from link_server import hislip_instrument, polite, socket_instrument

from drivers.links.serial_link import SerialLink
from drivers.links.visa_link import VisaLink
from drivers.scpi import Scpi
from drivers.spiking.session import FrameSession
from hil.errors import LinkTimeout
from hil.frame_protocol import ALLOCATE, ARM, ARRAY, BLOCK, Kind
from sim_devices.instruments.keysight_33600 import Keysight33600
from sim_devices.instruments.spiking_board import SpikingBoard
from sim_devices.transports.hislip import HislipServer
from sim_devices.transports.pty import PtyServer

# PyVISA-py does not close the socket of a HiSLIP session that could not be opened.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

THREADS = 8


def answered(message: bytes) -> bytes | None:
    """Besides what is polite: "NUMBER? 7" is answered with a block of seven int16, each of them 7."""
    name, _, rest = message.partition(b" ")
    if name == b"NUMBER?":
        data = np.full(int(rest) % 50, int(rest), "<i2").tobytes()
        digits = str(len(data)).encode()
        return b"#%d%s%s" % (len(digits), digits, data)
    return polite(message)


def wired(kind: str, stack: ExitStack) -> Scpi:
    if kind == "pty":
        ended: Callable[[bytes], bytes | None] = lambda m: None if (reply := answered(m)) is None else reply + b"\n"  # noqa: E731
        board = stack.enter_context(firmware(ended))
        return Scpi(SerialLink(board.port, baud=4_000_000, timeout_s=5.0, terminator=b"\n"))
    instrument = {"socket": socket_instrument, "hislip": hislip_instrument}[kind]
    resource, _ = stack.enter_context(instrument(answered))
    return Scpi(VisaLink(resource, timeout_s=5.0, backend="@py"))


def all_at_once(talk: Callable[[int], Iterator[str]]) -> list[str]:
    """What the threads found wrong; each calls `talk` with its own name, and all begin together."""
    wrong: list[str] = []
    begin = threading.Barrier(THREADS)

    def run(name: int) -> None:
        begin.wait()
        try:
            wrong.extend(talk(name))
        except Exception as error:  # noqa: BLE001 - handed over to the test
            wrong.append(f"{name}: {error!r}")

    threads = [threading.Thread(target=run, args=(name,)) for name in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@pytest.mark.parametrize("kind", ["socket", "hislip", "pty"])
def test_texts_numbers_and_blocks_go_to_whoever_asked(kind: str) -> None:
    with ExitStack() as stack:
        scpi = wired(kind, stack)
        stack.callback(scpi.close)
        scpi.identify()

        def talk(name: int) -> Iterator[str]:
            for turn in range(90):
                number = 1000 * name + turn
                if (text := scpi.ask(f"ECHO? {name}:{turn}")) != f"{name}:{turn}":
                    yield f"{name}:{turn} got {text}"
                if (whole := scpi.ask_int(f"ECHO? {number}")) != number:
                    yield f"{number} got {whole}"
                items = scpi.ask_block(f"NUMBER? {number}", "<i2", number % 50)
                if (items != number).any():
                    yield f"a block of {number} got {items[:3]}"
                scpi.send(f"SET {number}")

        assert all_at_once(talk) == []


def test_one_thread_that_gives_up_does_not_shift_the_answers_of_the_others() -> None:
    """A late answer makes the link dirty for all; whoever recovers it, nobody gets the answer to another question."""
    with socket_instrument() as (resource, _):
        scpi = Scpi(VisaLink(resource, timeout_s=0.08, backend="@py"))
        scpi.identify()

        def talk(name: int) -> Iterator[str]:
            for turn in range(25):
                late = (name, turn) in ((2, 5), (5, 15))
                with scpi.link.transaction():
                    if scpi.link.dirty:
                        scpi.recover()
                    try:
                        text = scpi.ask(f"SLOW? 0.12 {name}:{turn}" if late else f"ECHO? {name}:{turn}")
                    except LinkTimeout:
                        continue
                if late or text != f"{name}:{turn}":
                    yield f"{name}:{turn} got {text}"

        assert all_at_once(talk) == []
        scpi.close()


def test_a_value_set_and_asked_in_one_message_is_ones_own() -> None:
    server = HislipServer(Keysight33600())
    server.start()
    scpi = Scpi(VisaLink(server.resource, timeout_s=5.0, backend="@py"))
    scpi.identify()

    def talk(name: int) -> Iterator[str]:
        for turn in range(50):
            hertz = 1000 * (name + 1) + turn
            if (found := scpi.ask_float(f":SOUR1:FREQ {hertz};FREQ?")) != hertz:
                yield f"{hertz} got {found}"

    try:
        assert all_at_once(talk) == []
        assert scpi.errors() == ()
    finally:
        scpi.close()
        server.close()


def test_frames_go_to_whoever_asked() -> None:
    """Each thread steps an array of its own with a current of its own, and reads the membranes that it made."""
    server = PtyServer(SpikingBoard(neurons=64))
    server.start()
    session = FrameSession(SerialLink(server.port, baud=4_000_000, timeout_s=5.0))
    try:
        session.ask(Kind.ARM, ARM.pack(0.0))
        for _ in range(THREADS):
            session.ask(Kind.ALLOCATE, ALLOCATE.pack(4, 0, 0, 1, 0, 0, 0.5, 1.0, 0.0, session.welcome.limit))

        def talk(name: int) -> Iterator[str]:
            for turn in range(25):
                current = np.full(4, 0.01 * (name + 1) + 0.001 * turn, "<f4")
                block = BLOCK.pack(name, 0, 0, 1, 0, 1)
                session.ask(Kind.RESET, ARRAY.pack(name))
                session.ask(Kind.STEP, block, current.tobytes())
                found = np.frombuffer(session.ask(Kind.MONITOR, block), "<f4")
                if not np.allclose(found, current, rtol=1e-6):
                    yield f"{current[0]} got {found}"

        assert all_at_once(talk) == []
        assert session.traffic.stale == 0
    finally:
        session.close()
        server.close()
