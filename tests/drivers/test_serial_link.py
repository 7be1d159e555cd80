"""SerialLink on a pseudo-terminal in raw mode, with a thread at the other end."""

from __future__ import annotations

import errno
import os
import time
import tty

import pytest
import serial
from firmware import firmware
from link_server import IDN, block

from drivers.links.serial_link import SerialLink, ports
from drivers.scpi import Scpi
from hil.errors import BadBlock, ConfigError, DirtySession, Disconnected, LinkTimeout, OpenFailed


def polite(message: bytes) -> bytes | None:
    name, _, rest = message.partition(b" ")
    if name == b"*IDN?":
        return IDN + b"\r\n"
    if name == b"ECHO?":
        return rest + b"\r\n"
    if name == b"BYTES?":
        return bytes(range(256)) * int(rest)
    if name == b"BLOCK?":
        return block(b"\n" * int(rest)) + b"\n"
    if name == b"LATE?":
        time.sleep(float(rest))
        return b"late\n"
    return None


def test_lines_and_exact_bytes() -> None:
    with firmware(polite) as board:
        link = SerialLink(board.port, timeout_s=1.0)
        assert link.name == board.port
        link.write(b"ECHO? ", memoryview(b"hello"), b"\n")
        assert link.read_text() == "hello"
        link.write(b"BYTES? 40\n")
        assert link.read_exact(256 * 39) == bytes(range(256)) * 39
        assert link.read_exact(256) == bytes(range(256))
        assert link.read_exact(0) == b""
        link.close()
        link.close()


def test_text_may_come_in_one_piece_with_what_follows() -> None:
    with firmware(lambda m: b"one\ntwo\r\n\x01\x02") as board:
        link = SerialLink(board.port)
        link.write(b"?\n")
        assert (link.read_text(), link.read_text()) == ("one", "two")
        assert link.read_exact(2) == b"\x01\x02"
        link.close()


def test_a_terminator_makes_it_speak_scpi() -> None:
    with firmware(polite) as board:
        session = Scpi(SerialLink(board.port, terminator=b"\n"))
        assert session.identify().serial == "SN-1"
        assert session.ask_block("BLOCK? 5000", "u1", 5000).tobytes() == b"\n" * 5000
        assert session.ask("ECHO? again") == "again"
        session.close()


def test_bytes_after_a_block_are_refused() -> None:
    with firmware(lambda m: block(b"abc") + b"\nlate\n") as board:
        link = SerialLink(board.port, terminator=b"\n", timeout_s=0.2)
        link.write(b"CURVE?")
        time.sleep(0.05)
        with pytest.raises(BadBlock):
            link.read_block(1, 10)
        assert link.dirty
        link.close()


def test_silence_is_a_timeout_and_the_late_reply_goes_nowhere() -> None:
    with firmware(polite) as board:
        session = Scpi(SerialLink(board.port, timeout_s=0.1, terminator=b"\n"))
        session.identify()
        with pytest.raises(LinkTimeout, match="0 bytes"):
            session.ask("LATE? 0.15")
        with pytest.raises(DirtySession):
            session.ask("ECHO? next")
        time.sleep(0.1)
        session.recover()
        assert session.ask("ECHO? next") == "next"
        session.close()


def test_a_short_reply_says_how_short() -> None:
    with firmware(lambda m: b"abc") as board:
        link = SerialLink(board.port, timeout_s=0.1)
        link.write(b"?\n")
        with pytest.raises(LinkTimeout, match="3 of 10 bytes"):
            link.read_exact(10)
        link.close()


def test_drain_takes_a_banner_off_the_line() -> None:
    with firmware(polite) as board:
        link = SerialLink(board.port)
        board.say(b"boot 1.2\r\nready\r\n")
        assert link.drain() == b"boot 1.2\r\nready\r\n"
        assert link.drain() == b""
        link.write(b"ECHO? x\n")
        assert link.read_text() == "x"
        link.close()


def test_an_unplugged_board_is_noticed_at_once() -> None:
    with firmware(polite) as board:
        link = SerialLink(board.port, timeout_s=5.0)
        link.write(b"ECHO? x\n")
        assert link.read_text() == "x"
        link.write(b"UNPLUG\n")
        start = time.monotonic()
        with pytest.raises(Disconnected, match="cable"):
            link.read_exact(1)
        assert time.monotonic() - start < 4.0
        with pytest.raises(DirtySession):
            link.write(b"x")
        link.close()


def test_a_board_that_does_not_read_is_a_timeout() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    link = SerialLink(os.ttyname(slave), timeout_s=0.2)
    start = time.monotonic()
    with pytest.raises(LinkTimeout):
        link.write(bytes(1 << 20))
    assert time.monotonic() - start < 20.0
    link.close()
    os.close(master)
    os.close(slave)


def test_reopen_asks_for_identification() -> None:
    with firmware(polite) as board:
        link = SerialLink(board.port, terminator=b"\n")
        link.reopen()
        with pytest.raises(DirtySession):
            link.write(b"*IDN?")
        Scpi(link).identify()
        assert not link.dirty
        link.close()
        with pytest.raises(Disconnected):
            link.write(b"*IDN?")


def test_no_such_port() -> None:
    with pytest.raises(OpenFailed, match="no other program"):
        SerialLink("/dev/no-such-port")
    with pytest.raises(ConfigError):
        SerialLink("/dev/null", timeout_s=0)


def as_nobody(path: str) -> int:
    """0, or the error number of an open by another account."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
        except OSError as error:
            code = error.errno or 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(os.getuid() != 0, reason="TIOCEXCL refuses all but root, and another account is imitated with setuid")
def test_other_programs_are_refused_by_the_port_itself_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with firmware(polite) as board:
        os.chmod(board.port, 0o666)
        link = SerialLink(board.port)
        assert as_nobody(board.port) == 0, "a pseudo-terminal would keep it for ever"
        link.close()
        monkeypatch.setattr(os, "ttyname", lambda handle: "/dev/ttyACM0")
        link = SerialLink(board.port)
        assert as_nobody(board.port) == errno.EBUSY
        link.reopen()
        assert as_nobody(board.port) == errno.EBUSY
        link.close()
        assert as_nobody(board.port) == 0


def test_a_forked_process_does_not_hold_the_port() -> None:
    """Of a trainer that is gone, say: whoever makes safe opens the port anew."""
    with firmware(polite) as board:
        link = SerialLink(board.port, timeout_s=1.0)
        (ours, theirs), (heard, says) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(theirs)
            os.write(says, b"forked")  # what a fork closes is closed by now
            os.read(ours, 1)
            os._exit(0)
        os.read(heard, 6)
        with pytest.raises(OpenFailed, match="end the program that holds this port"):
            SerialLink(board.port)
        assert link._port is not None
        os.close(link._port.fd or -1)  # as the kernel does for a process that is killed
        again = SerialLink(board.port, timeout_s=1.0)
        again.write(b"ECHO? hello\n")
        assert again.read_text() == "hello"
        again.close()
        link._port.fd = None
        for file in (theirs, ours, heard, says):
            os.close(file)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EACCES, "group that owns the port"),
        (errno.EBUSY, "end the program"),
        (errno.ENOENT, "the port's name"),
        (errno.EIO, "cable"),
    ],
)
def test_a_port_that_cannot_be_opened_is_told_by_its_cause(monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    def refuse(self: serial.Serial) -> None:
        raise serial.SerialException(code, os.strerror(code))

    monkeypatch.setattr(serial.Serial, "open", refuse)
    with pytest.raises(OpenFailed, match=said) as caught:
        SerialLink("/dev/ttyACM7")
    assert all(name in caught.value.allowed for name in ports())
    assert "nothing was sent" in caught.value.outputs
