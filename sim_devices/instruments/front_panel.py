"""The knobs of an InfiniiVision scope: settings that are stored, checked and read back, with the defaults of ``*RST``.

    range = 8 scale (vertical)         range = 10 scale (horizontal)         all volts at the probe's tip

Source: Keysight InfiniiVision 3000 X-Series Programmer's Guide, ":CHANnel<n>", ":TIMebase", ":TRIGger", ":ACQuire", ":WAVeform"
(BYTE, MSBFirst, unsigned after a reset).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sim_devices.instruments.parameters import INFINITY, Choice, Flag, Name, Number, Parameter
from sim_devices.instruments.program_message import ScpiError
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, scaled, setting

VERTICAL, HORIZONTAL = 8, 10  # divisions
NR3 = "+.8E"
SOURCES = ("CHANnel1", "CHANnel2", "CHANnel3", "CHANnel4")
FIFTY_OHM_RANGE_V = 8.0
CHANNEL_SUMMARY = (
    ("RANG", "range"), ("OFFS", "offset"), ("COUP", "coupling"), ("IMP", "impedance"), ("DISP", "display"),
    ("BWL", "bandwidth"), ("INV", "invert"), ("LAB", "label"), ("UNIT", "unit"), ("PROB", "probe"),
)  # fmt: skip
BOX: dict[str, Parameter] = {
    "timebase": Choice(("MAIN",), "MAIN"),
    "range": Number(20e-9, 500, 1e-3, "S", style=NR3),
    "position": Number(-500, 500, 0, "S", style=NR3),
    "reference": Choice(("LEFT", "CENTer", "RIGHt"), "CENT"),
    "trigger": Choice(("EDGE",), "EDGE"),
    "trigger_source": Choice((*SOURCES, "EXTernal"), "CHAN1"),
    "level_EXT": Number(-8, 8, 0, "V", style=NR3),
    **{f"level_CHAN{n}": Number(-240, 240, 0, "V", style=NR3) for n in range(1, 5)},
    "slope": Choice(("POSitive", "NEGative"), "POS"),
    "sweep": Choice(("AUTO", "NORMal"), "AUTO"),
    "type": Choice(("NORMal", "AVERage", "HRESolution"), "NORM"),
    "mode": Choice(("RTIMe",), "RTIM"),
    "count": Number(2, 65536, 8, integer=True),
    "complete": Number(100, 100, 100, integer=True),
    "source": Choice(SOURCES, "CHAN1"),
    "format": Choice(("BYTE", "WORD", "ASCii"), "BYTE"),
    "byte_order": Choice(("MSBFirst", "LSBFirst"), "MSBF"),
    "unsigned": Flag(True),
    "points": Number(1, 8e6, INFINITY, integer=True, infinite=True),
    "points_mode": Choice(("NORMal", "MAXimum", "RAW"), "NORM"),
}


def channel(n: int) -> dict[str, Parameter]:
    """The settings of one channel."""
    return {
        "display": Flag(n == 1),
        "range": Number(8e-3, 400e3, 40, "V", style=NR3),
        "offset": Number(-400e3, 400e3, 0, "V", style=NR3),
        "coupling": Choice(("DC", "AC"), "DC"),
        "impedance": Choice(("ONEMeg", "FIFTy"), "ONEM"),
        "bandwidth": Flag(),
        "invert": Flag(),
        "label": Name(str(n), 10),
        "unit": Choice(("VOLT", "AMPere"), "VOLT"),
        "probe": Number(0.1, 10e3, 1, style=NR3),
    }


def check_channel(s: Settings) -> None:
    """A range that the input has: 8 mV to 40 V times the probe, up to 8 V at 50 ohm."""
    at_input = s.number("range") / s.number("probe")
    top = FIFTY_OHM_RANGE_V if s.text("impedance") == "FIFT" else 40.0
    if not 7.999e-3 <= at_input <= top * 1.0001:
        raise ScpiError(-222, f"range {s.number('range'):g} V; 8 mV to {top:g} V at the input")


def commands(box: Settings, of: Callable[[Call], Settings]) -> Iterator[Command]:
    """Everything that only sets or reads a setting."""

    def the_box(call: Call) -> Settings:
        return box

    for pattern, name in (
        ("TIMebase:MODE", "timebase"), ("TIMebase[:MAIN]:RANGe", "range"), ("TIMebase[:MAIN]:POSition", "position"),
        ("TIMebase:REFerence", "reference"), ("TRIGger:MODE", "trigger"), ("TRIGger[:EDGE]:SOURce", "trigger_source"),
        ("TRIGger[:EDGE]:SLOPe", "slope"), ("TRIGger:SWEep", "sweep"), ("ACQuire:TYPE", "type"), ("ACQuire:MODE", "mode"),
        ("ACQuire:COUNt", "count"), ("ACQuire:COMPlete", "complete"), ("WAVeform:SOURce", "source"),
        ("WAVeform:FORMat", "format"), ("WAVeform:BYTeorder", "byte_order"), ("WAVeform:UNSigned", "unsigned"),
        ("WAVeform:POINts:MODE", "points_mode"),
    ):  # fmt: skip
        yield setting(pattern, name, the_box)
    for pattern, name in (
        ("DISPlay", "display"), ("RANGe", "range"), ("OFFSet", "offset"), ("COUPling", "coupling"), ("BWLimit", "bandwidth"),
        ("INVert", "invert"), ("LABel", "label"), ("UNITs", "unit"),
    ):  # fmt: skip
        yield setting(f"CHANnel<4>:{pattern}", name, of)
    yield scaled("CHANnel<4>:SCALe", "range", of, VERTICAL, NR3, "V")
    yield scaled("TIMebase[:MAIN]:SCALe", "range", the_box, HORIZONTAL, NR3, "S")
    yield Command("CHANnel<4>", get=lambda call: f":CHAN{call.channel}:" + _summary(of(call), call))
    yield Command("TIMebase", get=lambda call: _timebase(box))
    yield Command("CHANnel<4>:IMPedance", lambda call: _put_impedance(of(call), call), lambda c: of(c).shown("impedance", c))
    yield Command("CHANnel<4>:PROBe", lambda call: _put_probe(of(call), call), lambda c: of(c).shown("probe", c))
    yield Command("TRIGger[:EDGE]:LEVel", lambda call: _put_level(box, call), lambda call: _get_level(box, call))


def _summary(s: Settings, call: Call) -> str:
    return ";".join(f"{short} {s.shown(name, call)}" for short, name in CHANNEL_SUMMARY) + ";PROB:SKEW +0.00E+00;STYP SING"


def _timebase(box: Settings) -> str:
    reference, span, position = box.text("reference"), box.number("range"), box.number("position")
    return f":TIM:MODE MAIN;REF {reference};MAIN:RANG {span:{NR3}};POS {position:{NR3}}"


def _put_impedance(s: Settings, call: Call) -> None:
    """50 ohm has the smaller range; a larger one that was set is reduced, as the box does."""
    impedance = s.read("impedance", call.only())
    top = FIFTY_OHM_RANGE_V * s.number("probe") if impedance == "FIFT" else s.number("range")
    s.change(impedance=impedance, range=min(s.number("range"), top))


def _put_probe(s: Settings, call: Call) -> None:
    """The volts at the tip follow the attenuation; the input does not change."""
    probe = float(s.read("probe", call.only()))
    factor = probe / s.number("probe")
    s.change(probe=probe, range=s.number("range") * factor, offset=s.number("offset") * factor)


def _level_name(box: Settings, call: Call, at: int) -> str:
    """The level belongs to a source: the one named as parameter `at`, or else the trigger source."""
    named = call.tokens[at : at + 1]
    return f"level_{box.read('trigger_source', named[0]) if named else box.text('trigger_source')}"


def _put_level(box: Settings, call: Call) -> None:
    value = call.take(1, 2)[0]
    name = _level_name(box, call, 1)
    box.change(**{name: box.read(name, value)})


def _get_level(box: Settings, call: Call) -> str:
    call.take(0, 1)
    return box.shown(_level_name(box, call, 0), Call((), ()))
