"""The board of converters: simulated, and its firmware in C, built by a compiler of this computer; the same tests for both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.dac_board import DacBoard
from drivers.links.serial_link import SerialLink
from drivers.safe import SafeState, Switchable, carry_out, conversation
from drivers.vector.roles import Sweeper
from hil import frame_protocol as wire
from hil.conformance import Knob, check_instrument
from hil.errors import CommandRefused, ConfigError, ContractError, OutOfRange, SwitchedOff, WrongInstrument
from sim_devices.instruments.dac_board import DacBoard as SimulatedBoard
from sim_devices.instruments.spiking_board import SpikingBoard
from sim_devices.transports.pty import PtyServer

FIRMWARE = Path(__file__).resolve().parents[2] / "drivers" / "firmware"
COMPILER = shutil.which("cc") or shutil.which("gcc")
STEP_V = 5.0 / 16383


class Simulated:
    """The board in Python, on a line."""

    def __init__(self) -> None:
        self.box = SimulatedBoard()
        self._server = PtyServer(self.box)
        self._server.start()
        self.port = self._server.port

    def is_safe(self) -> bool:
        return not self.box.armed and all(self.box.stands(n) == 0 for n in range(1, 41))

    def press(self) -> None:
        self.box.press("SAFE")

    def close(self) -> None:
        self._server.close()


class Built:
    """The firmware, in a process of its own at the far end of a line."""

    def __init__(self, program: Path) -> None:
        master, slave = os.openpty()
        tty.setraw(slave)
        self.port = os.ttyname(slave)
        self._slave = slave
        self._process = subprocess.Popen(
            [program, "DB0001", "7"], stdin=master, stdout=master, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        os.close(master)
        assert self._process.stderr is not None
        self._told = self._process.stderr
        os.set_blocking(self._told.fileno(), False)
        self._codes = ""

    def is_safe(self) -> bool:
        """It told last that all codes of its converter are the safe one."""
        time.sleep(0.03)
        while line := self._told.readline():
            self._codes = json.loads(line)["codes"]
        return self._codes == "safe"

    def press(self) -> None:
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._told.close()
        os.close(self._slave)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None:
        pytest.skip("no C compiler on this computer: install gcc, and the firmware is built and tested")
    path = tmp_path_factory.mktemp("firmware") / "board"
    sources = [FIRMWARE / "board.c", FIRMWARE / "host.c"]
    subprocess.run([COMPILER, "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", path, *sources], check=True)
    return path


@pytest.fixture(params=["simulated", "firmware"])
def far(request: pytest.FixtureRequest) -> Iterator[Any]:
    board = Simulated() if request.param == "simulated" else Built(request.getfixturevalue("program"))
    yield board
    board.close()


class Table:
    """As tests of other instruments have it."""

    def __init__(self, far: Any) -> None:
        self.far = far
        link = SerialLink(far.port)
        self.count, write = 0, link.write
        self.driver = DacBoard(link=link, channels=(2, 5), inputs=(2, 5), low_v=0.5, high_v=4.5)

        def counted(*parts: bytes | memoryview) -> None:
            self.count += 1
            write(*parts)

        link.write = counted  # type: ignore[method-assign]

    def identify(self) -> object:
        return self.driver.identity

    def knobs(self) -> list[Knob]:
        def write(volts: float) -> None:
            self.driver.levels([1.0, volts])

        return [Knob("volts", write, lambda: self.driver.read()[1], (0.5, 2.5, 4.5), (0.4, 4.6), 1e-3)]

    def energise(self) -> bool:
        self.driver.levels([1.0, 2.0])
        return True

    def safe(self) -> None:
        self.driver.safe()

    def is_safe(self) -> bool:
        return bool(self.far.is_safe())

    def sent(self) -> int:
        return self.count

    def close(self) -> None:
        self.driver.close()


def test_it_keeps_the_contract_of_a_driver(far: Any) -> None:
    assert check_instrument(lambda: Table(far)).passed


def test_rows_are_held_and_read_in_few_frames(far: Any) -> None:
    table = Table(far)
    driver = table.driver
    assert isinstance(driver, Sweeper)
    assert isinstance(driver, Switchable)
    rows = [[0.5 + 0.01 * k, 4.5 - 0.01 * k] for k in range(120)]
    before = table.count
    found = driver.sweep(rows, 0.0)
    assert table.count - before <= 4  # ARM, and 51 rows a frame at least
    assert max(abs(a - b) for row, due in zip(found, rows, strict=True) for a, b in zip(row, due, strict=True)) <= STEP_V
    with pytest.raises(OutOfRange):
        driver.sweep([*rows, [0.5, float("nan")]], 0.0)
    with pytest.raises(ContractError):
        driver.sweep(rows, 1.0)
    driver.close()
    assert far.is_safe()


def test_silence_trips_the_watchdog(far: Any) -> None:
    driver = DacBoard(far.port, channels=(1,), watchdog_s=0.05)
    driver.levels([3.0])
    time.sleep(0.12)
    assert far.is_safe()
    with pytest.raises(CommandRefused, match="WATCHDOG"):
        driver.levels([2.0])
    assert [one.kind for one in driver.findings()] == ["power"]
    driver.forget()
    driver.levels([2.0])  # armed again, as the ladder does
    driver.close()


def test_rows_that_would_keep_it_from_its_key_for_long_are_refused(far: Any) -> None:
    driver = DacBoard(far.port)
    driver.levels([3.0])
    codes = np.zeros((2, 40), "<u2").tobytes()
    with pytest.raises(CommandRefused, match="OUT_OF_RANGE"):
        driver._session.ask(wire.Kind.ROWS, wire.ROWS.pack(600_000, 1, 2), codes)
    assert not far.is_safe()
    driver.close()


def test_the_shortest_watchdog_is_one(far: Any) -> None:
    driver = DacBoard(far.port, watchdog_s=1e-4)
    driver.prepare()
    time.sleep(0.03)
    with pytest.raises(CommandRefused, match="WATCHDOG"):
        driver.levels([2.0])
    driver.close()


def test_a_hand_on_its_key_is_seen_and_stays(far: Any) -> None:
    driver = DacBoard(far.port)
    driver.levels([3.0])
    assert driver.findings() == []
    far.press()
    assert far.is_safe()
    assert [one.kind for one in driver.findings()] == ["off"]
    with pytest.raises(SwitchedOff):
        driver.reset()
    driver.close()


def test_another_process_can_make_it_safe(far: Any) -> None:
    driver = DacBoard(far.port)
    driver.levels([3.0])
    state = SafeState.from_json(driver.safe_state().to_json())
    driver._session.close()  # its program is dead
    with conversation(state)(state) as talk:
        carry_out(state, talk)
    assert far.is_safe()


@pytest.mark.parametrize("settings", [{"channels": (41,)}, {"channels": ()}, {"inputs": (1, 1)}, {"averages": 0}])
def test_channels_that_the_board_does_not_have(settings: dict[str, Any]) -> None:
    with PtyServer(SimulatedBoard()) as line, pytest.raises(ConfigError):
        DacBoard(line.port, **settings)


def test_another_board_is_refused() -> None:
    with PtyServer(SpikingBoard()) as line, pytest.raises(WrongInstrument):
        DacBoard(line.port)


def test_damage_on_the_line_is_asked_for_again(far: Any) -> None:
    link = SerialLink(far.port, timeout_s=0.2)
    driver = DacBoard(link=link)
    write, damaged = link.write, []

    def hurt(*parts: bytes | memoryview) -> None:
        message = bytearray(b"".join(bytes(part) for part in parts))
        if len(damaged) < 2:  # once in its payload, once in its head
            message[-4 if not damaged else 6] ^= 0x10
            damaged.append(1)
        write(bytes(message))

    driver.prepare()
    link.write = hurt  # type: ignore[method-assign]
    driver.levels([2.5])
    assert driver.read() == [pytest.approx(2.5, abs=STEP_V)]
    assert len(damaged) == 2
    driver.close()
