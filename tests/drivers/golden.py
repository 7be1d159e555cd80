"""Golden transcripts: the fixed session of each driver with its simulated box, and how they are recorded anew:

    python tests/drivers/golden.py [NAME…]

into tests/drivers/transcripts/golden. A transcript of a real box (hil transcript) goes into tests/drivers/transcripts/real; no
line is needed here for it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from drivers.fixed_session import opened, session
from drivers.links.memory import MemoryLink
from drivers.links.scripted import ScriptedFrames, ScriptedLink, read_facts
from drivers.links.transcript import Transcribed, TranscribedFrames, WireLog

FOLDER = Path(__file__).resolve().parent / "transcripts"
GOLDEN, REAL = FOLDER / "golden", FOLDER / "real"
WHOLE_BYTES = 1 << 17
SIM = "sim_devices.instruments."
Case = tuple[str, dict[str, Any], str, dict[str, Any]]  # driver, its settings, box, its settings
DRIVE = {"low_v": -1.0, "high_v": 1.0}
SCREEN = {"range_v": 0.8, "offset_v": 0.2}
CASES: dict[str, Case] = {
    "keysight_33600": ("drivers.keysight_33600:Keysight33600", DRIVE, "keysight_33600:Keysight33600", {}),
    "keysight_33600_both": (
        "drivers.keysight_33600:Keysight33600", {"channels": [1, 2], **DRIVE}, "keysight_33600:Keysight33600", {}
    ),
    "keysight_m8195a": (
        "drivers.keysight_m8195a:KeysightM8195A", {"low_v": -0.25, "high_v": 0.25}, "keysight_m8195a:KeysightM8195A", {}
    ),
    "siglent_sdg": ("drivers.siglent_sdg:SiglentSDG", DRIVE, "siglent_sdg:SiglentSDG", {}),
    "rigol_dg": ("drivers.rigol_dg:RigolDG", DRIVE, "rigol_dg:RigolDG", {}),
    "tektronix_afg31000": (
        "drivers.tektronix_afg31000:TektronixAFG31000", DRIVE, "tektronix_afg31000:TektronixAFG31000", {}
    ),
    "keysight_infiniivision": (
        "drivers.keysight_infiniivision:InfiniiVision", SCREEN, "keysight_infiniivision:InfiniiVision", {}
    ),
    "siglent_sds": ("drivers.siglent_sds:SiglentSDS", SCREEN, "siglent_sds:SiglentSDS", {}),
    "rigol_ds1000z": ("drivers.rigol_scope:RigolScope", SCREEN, "rigol_scope:RigolScope", {}),
    "rigol_dho": ("drivers.rigol_scope:RigolScope", SCREEN, "rigol_scope:RigolScope", {"model": "DHO802"}),
    "tektronix_mso": ("drivers.tektronix_mso:TektronixMSO", SCREEN, "tektronix_mso:TektronixMSO", {}),
    "tektronix_tbs": ("drivers.tektronix_tbs:TektronixTBS", SCREEN, "tektronix_tbs:TektronixTBS", {}),
    "rohde_schwarz_rtb": ("drivers.rohde_schwarz_rtb:RohdeSchwarzRTB", SCREEN, "rohde_schwarz_rtb:RohdeSchwarzRTB", {}),
    "red_pitaya": (
        "drivers.red_pitaya:RedPitaya", {"channels": [1, 2], "low_v": -0.5, "high_v": 0.5}, "red_pitaya:RedPitaya", {}
    ),
    "keithley_2400": (
        "drivers.keithley_2400:Keithley2400", {"low_v": -1.0, "high_v": 1.0, "range_a": 1e-3}, "keithley_2400:Keithley2400", {}
    ),
    "keithley_2450": (
        "drivers.keithley_2450:Keithley2450", {"low_v": -1.0, "high_v": 1.0, "range_a": 1e-3}, "keithley_2450:Keithley2450", {}
    ),
    "keysight_b2900": (
        "drivers.keysight_b2900:KeysightB2900", {"channels": [1, 2], "low_v": -1.0, "high_v": 1.0, "range_a": 1e-3},
        "keysight_b2900:KeysightB2900", {},
    ),
    "keithley_dmm6500": (
        "drivers.keithley_dmm6500:KeithleyDMM6500", {"range_v": 10.0}, "keithley_dmm6500:KeithleyDMM6500", {"there": 1.5}
    ),
    "thorlabs_pm100d": ("drivers.thorlabs_pm100d:ThorlabsPM100D", {}, "thorlabs_pm100d:ThorlabsPM100D", {"power_w": 5e-4}),
    "keysight_8164": ("drivers.keysight_8164:Keysight8164", {}, "keysight_8164:Keysight8164", {}),
    "keysight_e36300": ("drivers.keysight_e36300:KeysightE36312A", {"high_v": 5.0}, "keysight_e36300:KeysightE36312A", {}),
    "qontrol": (
        "drivers.qontrol:Qontrol", {"channels": [0, 1, 5], "high_v": [5.0, 5.0, 8.0], "limit_a": 12e-3}, "qontrol:Qontrol", {}
    ),
    "dac_board": (
        "drivers.dac_board:DacBoard", {"channels": [2, 3], "inputs": [1, 4], "session": 7}, "dac_board:DacBoard", {}
    ),
    "keysight_n7776c": ("drivers.keysight_n7776c:KeysightN7776C", {}, "keysight_n7776c:KeysightN7776C", {}),
}  # fmt: skip


def named(use: str) -> Any:
    """The class of "module:Class"."""
    module, _, kind = use.partition(":")
    return getattr(importlib.import_module(module), kind)


def takes_frames(made: Any) -> bool:
    """True for the driver of a board that speaks frames."""
    return "link" in inspect.signature(made).parameters


class LineLink(MemoryLink):
    """A serial line to a box in this process: bytes go to it, and lines or frames come back."""

    _bytes = b""

    def write(self, *parts: bytes | memoryview) -> None:
        self.sent.append(b"".join(bytes(part) for part in parts) + self.end)
        self._bytes += self._box.feed(self.sent[-1])  # type: ignore[attr-defined]

    end = b"\n"

    def read_text(self) -> str:
        line, newline, self._bytes = self._bytes.partition(b"\n")
        assert newline, "no answer"
        return line.decode("ascii")


class FramesLink(LineLink):
    """A serial line of frames."""

    end = b""

    def read_exact(self, count: int) -> bytes:
        assert len(self._bytes) >= count, "no answer"
        data, self._bytes = self._bytes[:count], self._bytes[count:]
        return data

    def drain(self) -> bytes:
        data, self._bytes = self._bytes, b""
        return data


class Edge:
    """Gives a scope an edge when it has been armed and is asked for the first time: a ramp on each input."""

    def __init__(self, box: Any) -> None:
        self.scope = next((part for part in getattr(box, "parts", (box,)) if hasattr(part, "capture")), None)
        self.armed_at = None

    def come(self) -> None:
        if self.scope is not None:
            window = self.scope.window()
            volts = 0.2 + 0.3 * torch.linspace(-1, 1, window.points)
            self.scope.capture(window, dict.fromkeys(self.scope._channels, volts))


class Triggered:
    """A digitizer whose trigger comes after it was armed."""

    def __init__(self, digitizer: Any, edge: Edge) -> None:
        self._digitizer, self._edge = digitizer, edge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._digitizer, name)

    def wait(self, timeout_s: float) -> None:
        self._edge.come()
        self._digitizer.wait(timeout_s)


def triggered(driver: Any, edge: Edge) -> list[Any]:
    """The parts of a driver, its digitizer with an edge to come."""
    from drivers.waveform.roles import parts

    return [Triggered(part, edge) if hasattr(part, "arm") else part for part in parts(driver)]


def talked(name: str, through: Callable[[Any, bool], Any] = lambda wire, frames: wire) -> tuple[list[bytes], list[Any]]:
    """Talk to the box of a case, through what is put between it and the wire; what was sent, and what was read."""
    use, settings, box_use, box_settings = CASES[name]
    box, frames = named(f"{SIM}{box_use}")(**box_settings), takes_frames(named(use))
    wire: Any = FramesLink(box) if frames else LineLink(box) if hasattr(box, "feed") else MemoryLink(box)
    driver = opened(named(use), through(wire, frames), settings)
    found = session(*triggered(driver, Edge(box)))
    driver.close()
    return wire.sent, found


def record(name: str, folder: Path) -> tuple[Path, list[Any]]:
    """Talk to the box of a case; the transcript, and what was read."""
    path, facts = folder / f"{name}.jsonl", {"driver": CASES[name][0], "settings": CASES[name][1]}
    with WireLog(path, name, full_bytes=WHOLE_BYTES, facts=facts) as log:
        return path, talked(name, lambda wire, frames: (TranscribedFrames if frames else Transcribed)(wire, log))[1]


def play(path: Path) -> list[Any]:
    """Play a transcript to its driver; what was read. Raises: ContractError: the driver says something else."""
    facts = read_facts(path)
    link: Any = (ScriptedFrames if takes_frames(named(facts["driver"])) else ScriptedLink).from_transcript(path)
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in facts["settings"].items()}
    driver = opened(named(facts["driver"]), link, settings)
    found = session(driver)
    driver.close()
    link.done()
    return found


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for each in sys.argv[1:] or CASES:
        (GOLDEN / f"{each}.jsonl").unlink(missing_ok=True)
        made, read = record(each, GOLDEN)
        print(f"{made.name:32} {made.stat().st_size:6} bytes   read {read}")
