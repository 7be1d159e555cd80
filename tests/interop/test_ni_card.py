"""drivers/ni_card.py: an NI card as the instrument of a bench of levels, over the gRPC mode of an unmodified nidaqmx.

pip install "hil[nidaqmx]"
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from hil.build.bench import open_bench
from hil.commands.transcript import transcribe
from hil.config.bench import read_bench
from hil.conformance import Knob, check_instrument
from hil.errors import OutOfRange, WrongInstrument
from sim_devices.dopant_network import DopantNetwork
from sim_devices.instruments.ni_card import NICard as Box

pytest.importorskip("nidaqmx", reason="pip install hil[nidaqmx]")

from interop.fake_nidaqmx import HIGH, LOW, FakeCard, Served, dopant

from drivers.ni_card import NICard
from drivers.safe import SafeState, carry_out, conversation
from drivers.scpi import Expect

BENCH = Path(__file__).resolve().parents[2] / "benches" / "pxi_dopant_network.toml"


def opened(address: str, **more: Any) -> NICard:
    settings: dict[str, Any] = {"max_step_v": 0.1, "rate_hz": 100e3, "pause_s": 1e-4, **more}
    return NICard(address, ["cDAQ1/ao0:6"], ["cDAQ1/ai0"], tuple(LOW), tuple(HIGH), **settings)


@pytest.fixture
def card() -> FakeCard:
    return FakeCard()


@pytest.fixture
def served(card: FakeCard) -> Iterator[Served]:
    with Served(card) as server:
        yield server


class Frame:
    """The card, and the truth behind it: what its outputs hold."""

    def __init__(self) -> None:
        self.card = FakeCard()
        self.server = Served(self.card)
        self.server.__enter__()
        self.driver = opened(self.server.address)

    def identify(self) -> object:
        return self.driver.identity

    def knobs(self) -> Sequence[Knob]:
        def write(volts: float) -> None:
            self.driver.levels([volts, *[0.0] * 6])

        return [Knob("output 1", write, lambda: self.card.stands(1), (-1.2, 0.0, 0.6), (0.7, -1.3, math.nan))]

    def energise(self) -> bool:
        self.driver.output(True)
        self.driver.levels([0.5] * 5 + [0.2] * 2)
        return bool(self.card.held.any())

    def safe(self) -> None:
        self.driver.safe()

    def is_safe(self) -> bool:
        return not self.card.held.any()

    def sent(self) -> int:
        return self.card.exchanges

    def close(self) -> None:
        self.driver.close()
        self.server.__exit__()


def test_the_contract_of_an_instrument() -> None:
    assert check_instrument(Frame).passed


def test_rows_are_played_as_one_buffer_and_levels_are_read_once(card: FakeCard, served: Served) -> None:
    driver = opened(served.address)
    rows = driver.drive.within(torch.rand(5, 7, generator=torch.Generator().manual_seed(1))).double().numpy()
    before = card.exchanges
    found = np.array(driver.sweep(rows.tolist(), 0.0))
    assert card.exchanges == before + 1
    assert np.allclose(found, dopant(rows.T).T, atol=2e-3)
    driver.levels(rows[0].tolist())
    assert driver.read() == pytest.approx(found[0].tolist(), abs=2e-3)
    assert card.exchanges == before + 2  # the level and its reading are one buffer
    driver.read()
    assert card.exchanges == before + 3
    with pytest.raises(OutOfRange):
        driver.levels([0.0] * 6 + [0.4])
    assert card.exchanges == before + 3
    driver.close()
    assert card.noted == []
    assert not card.held.any()


def test_another_process_makes_it_safe_when_this_one_is_gone(card: FakeCard, served: Served) -> None:
    """Its tasks are still there, as on an NI gRPC Device Server; a reset of the card ends them."""
    driver = opened(served.address, read_back=[f"cDAQ1/_ao{k}_vs_aognd" for k in range(7)])
    driver.levels([0.5] * 5 + [0.2] * 2)
    state = SafeState.from_json(driver.safe_state().to_json())
    with conversation(state)(state) as talk:
        assert carry_out(state, talk) == ""
    assert not card.held.any()
    assert card.noted == []  # it went there in steps that are allowed
    assert card.tasks == {}


def test_outputs_that_hold_something_else_are_found(card: FakeCard, served: Served) -> None:
    driver = opened(served.address, read_back=[f"cDAQ1/_ao{k}_vs_aognd" for k in range(7)])
    driver.levels([0.25] * 7)
    assert driver.findings() == []
    card.reboot()  # of the chassis; its tasks are gone with it
    driver.reopen()
    driver.levels([0.25] * 7)
    card.held[2] = 0.0
    assert [one.said for one in driver.findings()] == ["levels are others"]
    driver.close()


def test_the_command_has_a_conversation_with_it_but_no_transcript(tmp_path: Path) -> None:
    out = io.StringIO()
    assert transcribe(BENCH, tmp_path / "said", Console(file=out, width=200)) == []
    assert "no transcript: its package keeps the wire" in out.getvalue()
    assert "outputs off, read back" in out.getvalue()


def test_another_card_is_refused(served: Served) -> None:
    with pytest.raises(WrongInstrument, match="another card answers"):
        opened(served.address, expect=Expect(serial="1234"))


def test_its_bench_answers_as_the_twin_does() -> None:
    with open_bench(read_bench(BENCH)) as bench:
        device, twin = bench.device, DopantNetwork(specimen=1, noise=0.0)
        controls = torch.tensor([-0.5, 0.3, -0.9, 0.1, -0.4])
        x = device.spec.inputs.within(torch.rand(20, 2, generator=torch.Generator().manual_seed(2)))
        device.program(controls)
        found = device.forward(x)
        assert device.spec.outputs.unit == "A"
        due = twin.settled(x, controls)
        assert float((found - due).abs().max()) < 4e-9 + 8e-3 * float(due.abs().max())  # noise of 0.3 nA, 0.2 %; first order


@pytest.mark.parametrize("settings", [{"outputs": 0}, {"low_v": 1.0}, {"settling": 0.5}, {"settling": math.nan}])
def test_what_no_card_has_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="no such card"):
        Box(**settings)
