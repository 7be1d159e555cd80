"""The IEEE 488.2 core: syntax, paths, status, waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_devices.instruments.operations import Operations
from sim_devices.instruments.parameters import Choice, Flag, Name, Number, Parameter
from sim_devices.instruments.program_message import Block, ScpiError, units
from sim_devices.instruments.scpi import Call, Command, Scpi
from sim_devices.instruments.settings import Settings, setting


class Bench:
    """A box with a few settings, a block and an operation that never ends by itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.Condition()
        self.operations = Operations(self.lock, clock)
        self.block = b""
        self.triggers = 0
        parameters: dict[str, Parameter] = {
            "freq": Number(1, 1e8, 1e3, "HZ"),
            "volt": Number(-5, 5, 0, "V"),
            "shape": Choice(("SINusoid", "ARBitrary"), "SIN"),
            "on": Flag(),
            "label": Name(),
        }
        self.channels = {n: Settings(parameters) for n in (1, 2)}
        self.scpi = Scpi(
            self.table(),
            identity=("Maker", "Model", "SN1", "1.0"),
            lock=self.lock,
            operations=self.operations,
            reset=lambda: [s.reset() for s in self.channels.values()] and None,
            trigger=self.trigger,
            texts={785: "No such waveform"},
        )

    def table(self) -> list[Command]:
        def of(call: Call) -> Settings:
            return self.channels[call.channel]

        return [
            setting("[SOURce<2>]:FREQuency[:FIXed]", "freq", of),
            setting("[SOURce<2>]:VOLTage[:LEVel][:AMPLitude]", "volt", of),
            setting("[SOURce<2>]:FUNCtion", "shape", of),
            setting("[SOURce<2>]:LABel", "label", of),
            setting("OUTPut<2>[:STATe]", "on", of),
            Command("DATA:BLOCk", self.load, lambda call: self.block.hex()),
            Command("FAIL", self.fail),
        ]

    def load(self, call: Call) -> None:
        token = call.only()
        if not isinstance(token, Block):
            raise ScpiError(-104)
        self.block = bytes(token.data)

    def fail(self, call: Call) -> None:
        raise ScpiError(785, "X")

    def trigger(self) -> None:
        self.triggers += 1

    def ask(self, message: bytes | str) -> str | None:
        answer = self.scpi.execute(message.encode() if isinstance(message, str) else message)
        return None if answer is None else answer.decode()

    def errors(self) -> list[int]:
        found = []
        while (text := str(self.ask("SYST:ERR?"))) != '+0,"No error"':
            found.append(int(text.split(",")[0]))
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    "header",
    ["SOUR1:FREQ", "SOURCE1:FREQUENCY", "source:freq:fix", "FREQ", "freq:fixed", ":SOUR:FREQ", " \tSOUR1:FREQ:FIX"],
)
def test_long_short_optional_and_case(bench: Bench, header: str) -> None:
    bench.ask(f"{header} 2.5 MHz")
    assert float(str(bench.ask(f"{header}?"))) == 2.5e6
    assert bench.errors() == []


@pytest.mark.parametrize("header", ["SOURC:FREQ", "SOU:FREQ", "FREQUE", "FIX", "SOUR:FREQ:FIX:X", "*FOO", "SYST"])
def test_neither_long_nor_short_is_undefined(bench: Bench, header: str) -> None:
    assert bench.ask(f"{header}?") is None
    assert bench.errors() == [-113]


def test_numeric_suffix_picks_the_channel(bench: Bench) -> None:
    bench.ask("SOUR2:FREQ 5;:SOUR:FREQ 7")
    assert bench.channels[2].number("freq") == 5
    assert bench.channels[1].number("freq") == 7
    bench.ask("SOUR3:FREQ 5")
    bench.ask("FREQ2 5")
    assert bench.errors() == [-114, -114]


def test_path_goes_on_after_semicolon_and_colon_goes_back(bench: Bench) -> None:
    assert bench.ask("SOUR2:FREQ 5;VOLT 1;*OPC?;VOLT?;:FREQ?") == "1;+1.00000000000000E+00;+1.00000000000000E+03"
    assert bench.channels[2].number("volt") == 1
    bench.ask("SOUR1:FREQ 5;SOUR1:VOLT 2")  # relative: SOUR1:SOUR1:VOLT
    assert bench.errors() == [-113]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10 kHz", 1e4),
        ("1MHZ", 1e6),
        ("+.5E3", 500),
        ("1 e 3", 1e3),
        ("2.", 2),
        ("MIN", 1),
        ("MAXimum", 1e8),
        ("DEF", 1e3),
        ("5 HZ", 5),
    ],
)
def test_numbers(bench: Bench, text: str, value: float) -> None:
    bench.ask(f"FREQ {text}")
    assert bench.channels[1].number("freq") == pytest.approx(value)
    assert bench.errors() == []


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("FREQ", -109), ("FREQ 1,2", -108), ("FREQ fast", -104), ("FREQ NAN", -104), ("FREQ 'x'", -104), ("FREQ #13abc", -104),
        ("FREQ 5 V", -131), ("FREQ 0", -222), ("FREQ 1E400", -222), ("FUNC SQU", -224), ("OUTP MAYBE", -224), ("FREQ 1,", -109),
        ("*ESE 256", -222), ("DATA:BLOC #3", -161), ("DATA:BLOC #15abc", -161), ("DATA:BLOC #2x1a", -161),
        ("DATA:BLOC 7", -104),
        ("LAB 'open", -151), ("!", -102), ("*RST 1", -108), ("DATA:BLOC #11a b", -103), ("*IDN", -113), ("FAIL?", -113),
    ],
)  # fmt: skip
def test_refusals_have_the_right_code_and_change_nothing(bench: Bench, message: str, code: int) -> None:
    before = bench.channels[1].snapshot()
    assert bench.ask(message) is None
    assert bench.errors() == [code]
    assert bench.channels[1].snapshot() == before


def test_millivolt_is_milli_and_megahertz_is_mega(bench: Bench) -> None:
    bench.ask("VOLT 50mV;FREQ 3 mHz")
    assert bench.channels[1].number("volt") == pytest.approx(0.05)
    assert bench.channels[1].number("freq") == pytest.approx(3e6)


def test_flags_mnemonics_strings(bench: Bench) -> None:
    bench.ask("OUTP2 ON;:FUNC arb;LAB 'it''s; fine, \"yes\"'")
    assert bench.ask("OUTP2?;:FUNC?;LAB?") == '1;ARB;"it\'s; fine, "yes""'
    bench.ask("OUTP2 0.2;:OUTP1 3")
    assert bench.ask("OUTP2?;:OUTP1?") == "0;1"


@given(st.binary(max_size=300))
def test_a_block_is_never_looked_into(payload: bytes) -> None:
    count = str(len(payload)).encode()
    message = b"DATA:BLOC #%d%s%s;*IDN?;FREQ 7" % (len(count), count, payload)
    first, second, third = list(units(message))
    assert isinstance(first.tokens[0], Block)
    assert bytes(first.tokens[0].data) == payload
    assert (second.header, second.query, third.tokens) == ("*IDN", True, ("7",))


def test_an_indefinite_block_ends_with_the_message(bench: Bench) -> None:
    bench.ask(b"DATA:BLOC #0a;b\n,c")
    assert bench.block == b"a;b\n,c"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_a_message(bench: Bench, kind: Callable[[bytes], bytes]) -> None:
    bench.ask(kind(b"DATA:BLOC #13;\n,;FREQ 9"))
    assert (bench.block, bench.channels[1].number("freq")) == (b";\n,", 1e3)  # FREQ is relative to DATA
    assert bench.errors() == [-113]


def test_command_errors_void_the_rest_and_execution_errors_do_not(bench: Bench) -> None:
    assert bench.ask("FREQ 5;NONSENSE;*IDN?") is None
    assert bench.ask("FREQ 0;*IDN?") == "Maker,Model,SN1,1.0"
    assert bench.channels[1].number("freq") == 5
    assert bench.errors() == [-113, -222]


def test_power_on_bit_and_event_register(bench: Bench) -> None:
    assert bench.ask("*ESR?;*ESR?") == "+128;+0"
    bench.ask("FREQ 0")
    bench.ask("FREQ x")
    bench.ask("FAIL;*OPC")
    assert bench.ask("*ESR?") == f"{0x10 | 0x20 | 0x08 | 0x01:+d}"
    bench.scpi.query_error(-410)
    assert bench.ask("*ESR?") == "+4"
    assert bench.errors() == [-222, -104, 785, -410]


def test_status_byte(bench: Bench) -> None:
    bench.ask("*CLS;*ESE 32;*SRE 255")
    assert bench.scpi.status_byte() == 0
    bench.ask("FREQ x")
    assert bench.scpi.status_byte() == 0x04 | 0x20 | 0x40
    assert bench.ask("*SRE?;*IDN?;*STB?") == "+191;Maker,Model,SN1,1.0;" + f"{0x04 | 0x10 | 0x20 | 0x40:+d}"
    bench.ask("*CLS")
    assert bench.scpi.status_byte() == 0


def test_queue_overflow_replaces_the_last(bench: Bench) -> None:
    for _ in range(30):
        bench.ask("FREQ 0")
    assert bench.ask("SYST:ERR:COUN?") == "+20"
    assert bench.errors() == [-222] * 19 + [-350]


def test_maker_text_and_detail(bench: Bench) -> None:
    bench.ask("FAIL")
    assert bench.ask("SYST:ERR:NEXT?") == '+785,"No such waveform;X"'


def test_rst_resets_and_trg_triggers(bench: Bench) -> None:
    bench.ask("FREQ 5;*RST;*TRG")
    assert (bench.channels[1].number("freq"), bench.triggers) == (1e3, 1)


def test_opc_query_waits_until_the_operation_ends(bench: Bench) -> None:
    with bench.lock:
        bench.operations.begin("sweep")
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(bench.ask("*OPC?;*IDN?")), daemon=True)
    thread.start()
    time.sleep(0.05)
    assert answers == []
    assert bench.ask("*OPC;*ESR?") == "+128"  # the lock is free while another waits
    with bench.lock:
        bench.operations.end("sweep")
    thread.join(5)
    assert answers == ["1;Maker,Model,SN1,1.0"]
    assert bench.ask("*ESR?") == "+1"


def test_device_clear_ends_the_wait_and_voids_the_message(bench: Bench) -> None:
    with bench.lock:
        bench.operations.begin("sweep")
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(bench.ask("*IDN?;*WAI;FREQ 77")), daemon=True)
    thread.start()
    time.sleep(0.05)
    bench.scpi.clear()
    thread.join(5)
    assert answers == [None]
    assert bench.channels[1].number("freq") == 1e3
    assert bench.operations.pending()


def test_an_operation_ends_by_the_injected_clock() -> None:
    now = [10.0]
    bench = Bench(lambda: now[0])
    rang: list[str] = []
    with bench.lock:
        bench.operations.begin("play", after_s=2.0, at_end=lambda: rang.append("end"))
    assert bench.operations.pending()
    now[0] = 12.0
    assert bench.ask("*OPC?") == "1"
    assert rang == ["end"]


def test_two_commands_with_one_header_are_refused_at_once() -> None:
    class Twice(Bench):
        def table(self) -> list[Command]:
            return [*super().table(), Command("FREQuency")]

    with pytest.raises(AssertionError):
        Twice()
