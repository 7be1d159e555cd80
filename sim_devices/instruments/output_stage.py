"""The output stage of a generator channel: amplitude, offset, load, limits.

    v = (offset + x Vpp / 2) k        x in [-1, 1]        k = d(R) / d(L)        d(R) = R / (R + 50 ohm)

L is what OUTPut:LOAD says, R is what is really connected: with L = 50 and an open end the volts are twice what was asked for.
The stage gives 10 V at most into an open end, so |v| <= 10 d(L) as it is shown. Changing L moves nothing at the connector; the
numbers shown follow. Amplitude is peak to peak; VRMS and DBM are converted for the built-in shapes (crest factor).

Source: Keysight 33500B/33600A Series Operating and Service Guide, "VOLTage Subsystem", "OUTPut Subsystem".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from sim_devices.instruments.parameters import INFINITY, Choice, Flag, Number, Parameter, number
from sim_devices.instruments.program_message import ScpiError, Token
from sim_devices.instruments.scpi import Call, Command
from sim_devices.instruments.settings import Settings, setting

SOURCE_OHM = 50.0
OPEN_CIRCUIT_V = 10.0
LEAST_VPP = 2e-3  # into an open end
HIGHEST_DBM = 100.0  # far above what the stage gives into any load
ROUNDING_V = 1e-5  # settings come as decimal text: what fits up to this fits
CREST = {"SIN": 2 * math.sqrt(2), "SQU": 2.0, "TRI": 2 * math.sqrt(3), "RAMP": 2 * math.sqrt(3)}  # Vpp per Vrms
PARAMETERS: dict[str, Parameter] = {
    "vpp": Number(0, 2 * OPEN_CIRCUIT_V, 0.1, "V"),
    "offset": Number(-OPEN_CIRCUIT_V, OPEN_CIRCUIT_V, 0, "V"),
    "unit": Choice(("VPP", "VRMS", "DBM"), "VPP"),
    "load": Number(1, 10e3, 50, "OHM", infinite=True),
    "limit_high": Number(-OPEN_CIRCUIT_V, OPEN_CIRCUIT_V, 5, "V"),
    "limit_low": Number(-OPEN_CIRCUIT_V, OPEN_CIRCUIT_V, -5, "V"),
    "limits": Flag(),
    "output": Flag(),
    "polarity": Choice(("NORMal", "INVerted"), "NORM"),
}


def divider(load_ohm: float) -> float:
    """Return the share of the open-circuit voltage that is left at a load."""
    return 1.0 if load_ohm >= 0.99 * INFINITY else load_ohm / (load_ohm + SOURCE_OHM)


def high_v(s: Settings) -> float:
    """Return the highest level of the channel, V."""
    return s.number("offset") + _swing(s)


def low_v(s: Settings) -> float:
    """Return the lowest level of the channel, V."""
    return s.number("offset") - _swing(s)


def _swing(s: Settings) -> float:
    return 0.0 if s.text("function") == "DC" else 0.5 * s.number("vpp")


def at_load(s: Settings, load_ohm: float) -> tuple[float, float]:
    """Volts per full scale, and offset in V, at what is really connected."""
    factor = divider(load_ohm) / divider(s.number("load"))
    sign = -1.0 if s.text("polarity") == "INV" else 1.0
    return sign * _swing(s) * factor, s.number("offset") * factor


def check(s: Settings) -> None:
    """Refuse volts that the stage cannot give (-222), that do not fit together or that the limits forbid (-221)."""
    top = OPEN_CIRCUIT_V * divider(s.number("load"))
    if s.number("vpp") > 2 * top + ROUNDING_V or abs(s.number("offset")) > top + ROUNDING_V:
        raise ScpiError(-222, f"up to {2 * top:.4g} Vpp into this load")
    if high_v(s) > top + ROUNDING_V or low_v(s) < -top - ROUNDING_V:
        raise ScpiError(-221, f"amplitude and offset reach beyond +-{top:.4g} V")
    low, high = s.number("limit_low"), s.number("limit_high")
    if low > high:
        raise ScpiError(-221, "low limit above high limit")
    if s.flag("limits") and (high_v(s) > high + ROUNDING_V or low_v(s) < low - ROUNDING_V):
        raise ScpiError(-221, f"output would leave the voltage limits {low:.4g} to {high:.4g} V")


def commands(of: Callable[[Call], Settings]) -> Iterator[Command]:
    """Return the commands VOLTage and OUTPut:LOAD."""
    level = "[SOURce<2>]:VOLTage[:LEVel][:IMMediate]"

    def put_load(call: Call) -> None:
        s = of(call)
        load = float(s.read("load", call.only()))
        factor = divider(load) / divider(s.number("load"))
        scaled = {name: s.number(name) * factor for name in ("vpp", "offset", "limit_low", "limit_high")}
        s.change(load=load, **scaled)

    def put_amplitude(call: Call) -> None:
        s = of(call)
        s.change(vpp=_read_vpp(call.only(), s))

    def get_amplitude(call: Call) -> str:
        s = of(call)
        vpp = _amplitudes(s).limit(call.word()) if call.tokens else s.number("vpp")
        return nr3(_shown(vpp, s))

    def put_offset(call: Call) -> None:
        s, token = of(call), call.only()
        s.change(offset=_offsets(s).limit(call.word()) if _is_limit(token) else float(s.read("offset", token)))

    def get_offset(call: Call) -> str:
        s = of(call)
        return nr3(_offsets(s).limit(call.word()) if call.tokens else s.number("offset"))

    def put_high(call: Call) -> None:
        s = of(call)
        _put_edges(s, low_v(s), float(s.read("offset", call.only())))

    def put_low(call: Call) -> None:
        s = of(call)
        _put_edges(s, float(s.read("offset", call.only())), high_v(s))

    yield Command("OUTPut<2>:LOAD", put_load, lambda call: of(call).shown("load", call))
    yield Command(f"{level}[:AMPLitude]", put_amplitude, get_amplitude)
    yield Command(f"{level}:OFFSet", put_offset, get_offset)
    yield Command(f"{level}:HIGH", put_high, lambda call: nr3(high_v(of(call))))
    yield Command(f"{level}:LOW", put_low, lambda call: nr3(low_v(of(call))))
    yield setting("[SOURce<2>]:VOLTage:UNIT", "unit", of)
    yield setting("[SOURce<2>]:VOLTage:LIMit:HIGH", "limit_high", of)
    yield setting("[SOURce<2>]:VOLTage:LIMit:LOW", "limit_low", of)
    yield setting("[SOURce<2>]:VOLTage:LIMit:STATe", "limits", of)


def nr3(value: float) -> str:
    """Write a number as the box answers it: +1.00000000000000E+00."""
    return f"{value:+.14E}"


def _put_edges(s: Settings, low: float, high: float) -> None:
    if high - low < 0.999 * LEAST_VPP * divider(s.number("load")):
        raise ScpiError(-221, "the high level must be above the low level")
    s.change(vpp=high - low, offset=0.5 * (high + low))


def _is_limit(token: Token) -> bool:
    return isinstance(token, str) and token.isalpha() and token.upper()[:3] in ("MIN", "MAX", "DEF")


def _amplitudes(s: Settings) -> Number:
    """Return the limits of the amplitude beside the offset, Vpp."""
    factor = divider(s.number("load"))
    return Number(LEAST_VPP * factor, 2 * (OPEN_CIRCUIT_V * factor - abs(s.number("offset"))), 0.1, "V")


def _offsets(s: Settings) -> Number:
    """Return the limits of the offset beside the amplitude, V."""
    room = OPEN_CIRCUIT_V * divider(s.number("load")) - _swing(s)
    return Number(-room, room, 0.0, "V")


def _read_vpp(token: Token, s: Settings) -> float:
    """An amplitude in the unit it is given in, or else in VOLTage:UNIT."""
    if _is_limit(token):
        return _amplitudes(s).limit(str(token).upper())
    unit = s.text("unit")
    for suffix in ("VPP", "VRMS", "DBM"):
        if isinstance(token, str) and token.upper().endswith(suffix):
            token, unit = token[: -len(suffix)].rstrip() + ("" if suffix == "DBM" else "V"), suffix
    value = number(token, "" if unit == "DBM" else "V")
    if unit == "DBM":
        if value > HIGHEST_DBM:
            raise ScpiError(-222, f"{value:g} dBm")
        value = math.sqrt(1e-3 * 10 ** (value / 10) * _finite_load(s))
    vpp = value if unit == "VPP" else value * _crest(s)
    if vpp < 0.999 * LEAST_VPP * divider(s.number("load")):
        raise ScpiError(-222, f"at least {LEAST_VPP * divider(s.number('load')):g} Vpp")
    return vpp


def _shown(vpp: float, s: Settings) -> float:
    unit = s.text("unit")
    if unit == "VPP":
        return vpp
    rms = vpp / _crest(s)
    return rms if unit == "VRMS" else 10 * math.log10(rms * rms / _finite_load(s) / 1e-3)


def _crest(s: Settings) -> float:
    if s.text("function") not in CREST:
        raise ScpiError(-221, "VRMS and DBM need a built-in waveform")
    return CREST[s.text("function")]


def _finite_load(s: Settings) -> float:
    if s.number("load") >= 0.99 * INFINITY:
        raise ScpiError(-221, "DBM needs a finite load")
    return s.number("load")
