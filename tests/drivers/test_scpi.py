"""A SCPI session against a small instrument: identity, replies, paths, blocks, the error queue, recovery."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_server import IDN, block, socket_instrument

from drivers.links.visa_link import VisaLink
from drivers.scpi import Expect, Identity, Scpi
from hil.errors import (
    BadBlock,
    CommandRefused,
    ContractError,
    Desync,
    DirtySession,
    LinkTimeout,
    NotAReading,
    WrongInstrument,
)


class Box:
    """An instrument with canned replies and an error queue; keeps what it was sent."""

    def __init__(self, **replies: str | bytes) -> None:
        self.replies = {b"*IDN?": IDN, b"*OPC?": b"1"} | {
            name.encode() + b"?": text if isinstance(text, bytes) else text.encode() for name, text in replies.items()
        }
        self.queue: list[bytes] = []
        self.sent: list[bytes] = []

    def __call__(self, message: bytes) -> bytes | None:
        self.sent.append(message)
        if message == b":SYST:ERR?":
            return self.queue.pop(0) if self.queue else b'+0,"No error"'
        return self.replies.get(message)


def over(resource: str, expect: Expect | None = None) -> Scpi:
    return Scpi(VisaLink(resource, timeout_s=0.3, backend="@py"), expect=expect)


def test_identity() -> None:
    with socket_instrument(Box()) as (resource, _):
        session = over(resource)
        assert session.identity is None
        identity = session.identify()
        assert identity == Identity("Hil Works", "Model 7", "SN-1", "1.0")
        assert session.identity == identity
        session.close()


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_an_identity_has_four_fields(text: str) -> None:
    fields = [f.strip() for f in text.split(",", 3)]
    if len(fields) == 4 and fields[0] and fields[1]:
        assert Identity.parse(text).firmware == fields[3]
    else:
        with pytest.raises(Desync):
            Identity.parse(text)


@pytest.mark.parametrize(
    ("expect", "fits"),
    [
        (Expect(), True),
        (Expect(maker="hil works"), True),
        (Expect(maker=("ACME", "HIL"), model="Model"), True),
        (Expect(serial="sn-1"), True),
        (Expect(serial="SN-12"), False),
        (Expect(serial="SN"), False),
        (Expect(model="Model 8"), False),
        (Expect(maker=("ACME", "OTHER")), False),
    ],
)
def test_the_wrong_instrument_is_refused_and_cannot_be_used(expect: Expect, fits: bool) -> None:
    with socket_instrument(Box(VOLT="1.5")) as (resource, _):
        session = over(resource, expect)
        if fits:
            session.identify()
            assert session.ask_float("VOLT?") == 1.5
        else:
            with pytest.raises(WrongInstrument, match="SN-1") as caught:
                session.identify()
            assert caught.value.where == resource
            assert caught.value.allowed == str(expect) != ""
            with pytest.raises(DirtySession):
                session.ask("VOLT?")
        session.close()


def test_another_serial_number_after_a_fault_is_refused() -> None:
    box = Box()
    with socket_instrument(box) as (resource, _):
        session = over(resource)
        session.identify()
        box.replies[b"*IDN?"] = b"Hil Works,Model 7,SN-2,1.0"
        session.link.distrust("a test")
        with pytest.raises(WrongInstrument, match="another instrument than before"):
            session.recover()
        assert session.link.dirty
        session.close()


@pytest.mark.parametrize(("reply", "value"), [("1.5", 1.5), ("-2.5E-3", -0.0025), ("+9.7E37", 9.7e37), ("4", 4.0)])
def test_numbers(reply: str, value: float) -> None:
    with socket_instrument(Box(V=reply)) as (resource, _):
        session = over(resource)
        assert session.ask_float("V?") == value
        session.close()


@pytest.mark.parametrize("reply", ["9.9E37", "-9.9E+37", "9.91E37", "NAN", "INF", f"{np.float32(9.91e37)}"])
def test_sentinels_are_not_readings(reply: str) -> None:
    with socket_instrument(Box(V=reply)) as (resource, _):
        session = over(resource)
        with pytest.raises(NotAReading):
            session.ask_float("V?")
        assert not session.link.dirty
        session.close()


@pytest.mark.parametrize(
    ("question", "reply"), [("ask_float", "1.5V"), ("ask_int", "2.5"), ("ask_int", "x"), ("ask_bool", "2")]
)
def test_nonsense_makes_the_link_dirty(question: str, reply: str) -> None:
    with socket_instrument(Box(V=reply)) as (resource, _):
        session = over(resource)
        with pytest.raises(Desync, match="makes no sense"):
            getattr(session, question)("V?")
        with pytest.raises(DirtySession):
            session.ask("V?")
        session.close()


def test_whole_numbers_and_switches() -> None:
    with socket_instrument(Box(A="+3", B="3.0E1", C="ON", D="0")) as (resource, _):
        session = over(resource)
        assert (session.ask_int("A?"), session.ask_int("B?")) == (3, 30)
        assert (session.ask_bool("C?"), session.ask_bool("D?")) == (True, False)
        session.close()


def test_commands_start_from_the_root_and_wait_for_completion() -> None:
    box = Box()
    with socket_instrument(box) as (resource, _):
        session = over(resource)
        session.send("SOUR1:VOLT 1", ":OUTP1 ON", "*CLS", 'DISP:TEXT "ok?"')
        assert box.sent == [b':SOUR1:VOLT 1;:OUTP1 ON;*CLS;:DISP:TEXT "ok?"', b"*OPC?"]
        for wrong in ("VOLT? MAX", "VOLT?", "VOLT 1;VOLT?", "", " "):
            with pytest.raises(ContractError, match="use ask"):
                session.send("OUTP1 ON", wrong)
        with pytest.raises(ContractError, match="one line"):
            session.send("OUTP1 ON\n*RST")
        assert len(box.sent) == 2
        session.close()


def test_an_unknown_command_is_an_error_in_the_queue_and_not_a_timeout() -> None:
    box = Box()
    with socket_instrument(box) as (resource, _):
        session = over(resource)
        box.queue.append(b'-113,"Undefined header"')
        session.send("NO:SUCH 1")
        with pytest.raises(CommandRefused, match="Undefined header") as caught:
            session.check("setting the amplitude", outputs="off")
        assert "while setting the amplitude" in str(caught.value)
        assert caught.value.outputs == "off"
        session.check("nothing")
        session.close()


def test_a_long_queue_is_emptied_and_its_overflow_seen() -> None:
    box = Box()
    with socket_instrument(box) as (resource, _):
        session = over(resource)
        box.queue = [b'-222,"Data out of range"'] * 19 + [b'-350,"Queue overflow"']
        with pytest.raises(CommandRefused, match="17 more; the queue overflowed"):
            session.check("programming")
        box.queue = [b'-222,"Data out of range"'] * 100
        assert len(session.errors()) == 64
        assert len(session.errors()) == 36
        assert session.errors() == ()
        session.close()


def test_an_error_reply_that_is_none_is_out_of_step() -> None:
    box = Box()
    with socket_instrument(box) as (resource, _):
        session = over(resource)
        box.queue.append(b"hello")
        with pytest.raises(Desync):
            session.errors()
        assert session.link.dirty
        session.close()


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f4", "u1"])
def test_blocks_in_are_decoded_in_the_order_that_was_asked_for(dtype: str) -> None:
    values = np.arange(100).astype(dtype)
    with socket_instrument(Box(CURVE=block(values.tobytes()))) as (resource, _):
        session = over(resource)
        got = session.ask_block("CURVE?", dtype, 100)
        np.testing.assert_array_equal(got, values)
        assert got.dtype == np.dtype(dtype)
        got[0] = 7
        session.close()


@pytest.mark.parametrize("count", [99, 101])
def test_another_number_of_items_is_not_data(count: int) -> None:
    with socket_instrument(Box(CURVE=block(bytes(200)))) as (resource, _):
        session = over(resource)
        with pytest.raises(BadBlock):
            session.ask_block("CURVE?", "<i2", count)
        assert session.link.dirty
        session.close()


def test_power_cycle_is_seen_once() -> None:
    box = Box()
    with socket_instrument(box) as (resource, _):
        session = over(resource)
        box.replies[b"*ESR?"] = b"+128"
        assert session.power_cycled()
        box.replies[b"*ESR?"] = b"32"
        assert not session.power_cycled()
        session.close()


def test_recovery_gives_up_with_the_last_error() -> None:
    box = Box()
    with socket_instrument(box) as (resource, server):
        session = over(resource)
        session.identify()
        box.replies.clear()
        with pytest.raises(LinkTimeout):
            session.ask("*IDN?")
        with pytest.raises(LinkTimeout):
            session.recover(attempts=1, pause_s=0.01)
        box.replies[b"*IDN?"] = IDN
        assert session.recover(attempts=1, pause_s=0.01).serial == "SN-1"
        assert not session.link.dirty
        server.kill()
        session.close()
