"""Generator, node and scope on one bench: what arrives, when, and that it can be repeated."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hil.device import Port, Spec
from hil.errors import ConfigError, ContractError
from hil.snapshot import packed, unpacked
from sim_devices.bench.wire import Cable, Input, Output, Wire
from sim_devices.bench.wiring import Plant
from sim_devices.instruments.keysight_33600 import Keysight33600
from sim_devices.instruments.keysight_infiniivision import InfiniiVision
from sim_devices.iq_modulator import IqModulator
from sim_devices.twin import State

RATE = 100e6


class Amplifier(nn.Module):
    """y = gain x + offset + noise; the offset walks by `walk` a shot."""

    def __init__(self, *, gain: float = 0.5, offset: float = 0.0, noise: float = 0.0, walk: float = 0.0) -> None:
        super().__init__()
        if gain == 0:
            raise ConfigError("gain must not be 0", where="Amplifier")
        self.gain, self.offset, self.noise, self.walk = gain, offset, noise, walk
        self.step_s = 0.0

    @property
    def spec(self) -> Spec:
        return Spec(Port("in", -5, 5, "V"), Port("out", -5, 5, "V"), provenance="twin")

    def settings(self) -> dict[str, float]:
        return {"gain": self.gain, "offset": self.offset, "noise": self.noise, "walk": self.walk}

    def remade(self, settings: Mapping[str, float]) -> Amplifier:
        return Amplifier(**{**self.settings(), **settings})

    def sampled(self, step_s: float) -> Amplifier:
        same = Amplifier(gain=self.gain, offset=self.offset, noise=self.noise, walk=self.walk)
        same.step_s = step_s
        return same

    def rest(self, batch: int, rng: torch.Generator) -> State:
        return (torch.tensor(self.offset, dtype=torch.float64),)

    def respond(self, state: State, params: Tensor | None, x: Tensor, rng: torch.Generator) -> tuple[Tensor, State]:
        assert x.ndim == 2
        assert x.shape[0] == 1
        y = self.gain * x + state[0].to(x.dtype) + self.noise * torch.randn(x.shape, generator=rng)
        return y, (state[0] + self.walk * torch.randn((), generator=rng),)

    def ideal(self, x: Tensor) -> Tensor:
        return self.gain * x + self.offset


class Bench:
    def __init__(
        self, node: Amplifier | None = None, cable: Cable | None = None, oversample: int = 1, noise_v: float = 0.0
    ) -> None:
        lock = threading.Condition()
        self.awg = Keysight33600(lock=lock)
        self.scope = InfiniiVision(lock=lock, adc_bits=12)
        wire = Wire(self.awg, node or Amplifier(), self.scope, cable=cable or Cable(), noise_v=noise_v)
        self.plant = Plant([wire], seed=7, oversample=oversample, clock=lambda: 12.5)
        self.ask(self.awg, ":FORM:BORD SWAP;:SOUR1:FUNC ARB;:SOUR1:FUNC:ARB:FILT OFF;SRAT 100E6;:SOUR1:VOLT 4;:OUTP1 ON")
        self.ask(self.awg, ":SOUR1:BURS:STAT 1;MODE TRIG;NCYC 1;:TRIG1:SOUR BUS;:OUTP:SYNC ON")
        self.ask(self.scope, ":TRIG:SWE NORM;:TRIG:EDGE:SOUR EXT;LEV 0.5;:CHAN1:RANG 4;:WAV:FORM WORD;BYT LSBF;POIN:MODE RAW")

    def ask(self, box: Keysight33600 | InfiniiVision, message: str | bytes) -> str:
        answer = box.execute(message if isinstance(message, bytes) else message.encode())
        assert box.execute(b"SYST:ERR?") == b'+0,"No error"'
        return "" if answer is None else answer.decode("latin-1")

    def window(self, points: int, rate: float = RATE, start_s: float = 0.0) -> None:
        span = points / rate
        self.ask(self.scope, f":TIM:RANG {span:.12g};POS {start_s + span / 2:.12g};:WAV:POIN {points}")

    def upload(self, codes: NDArray[np.int16]) -> None:
        payload = codes.astype("<i2").tobytes()
        count = str(len(payload)).encode()
        self.ask(self.awg, b"SOUR1:DATA:VOL:CLE;:SOUR1:DATA:ARB:DAC W,#%d%s%s" % (len(count), count, payload))
        self.ask(self.awg, "SOUR1:FUNC:ARB W")

    def read(self) -> NDArray[np.float64]:
        fields = [float(f) for f in self.ask(self.scope, ":WAV:PRE?").split(",")]
        answer = self.scope.execute(b":WAV:DATA?")
        assert answer is not None
        return (np.frombuffer(answer[10:], "<u2").astype(float) - fields[9]) * fields[7] + fields[8]

    def shot(self, codes: NDArray[np.int16]) -> NDArray[np.float64]:
        self.upload(codes)
        assert self.ask(self.scope, ":SING;:AER?") == "+1"
        self.ask(self.awg, "*TRG")
        assert self.ask(self.scope, "*OPC?;:OPER:COND?") == "1;+0"
        return self.read()


def noise_like(n: int, seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-8000, 8000, n).astype(np.int16) * 4  # on the 14-bit grid


LSB = 4 / 4096


def expected(codes: NDArray[np.int16]) -> NDArray[np.float64]:
    return 0.5 * 2 * codes / 32767


@pytest.mark.parametrize("per_sample", [1, 2, 5])
@pytest.mark.parametrize("oversample", [1, 4])
def test_every_sample_arrives_where_it_belongs(per_sample: int, oversample: int) -> None:
    bench = Bench(oversample=oversample)
    codes = noise_like(1000)
    bench.window(1000 * per_sample, RATE * per_sample)
    volts = bench.shot(codes)
    np.testing.assert_allclose(volts, np.repeat(expected(codes), per_sample), atol=0.51 * LSB)


def test_before_and_after_the_record_the_generator_rests_at_its_first_point() -> None:
    bench = Bench()
    codes = noise_like(100)
    bench.window(300, start_s=-1e-6)
    volts = bench.shot(codes)
    rest = np.full(100, expected(codes)[0])
    np.testing.assert_allclose(volts, np.concatenate([rest, expected(codes), rest]), atol=0.51 * LSB)


@pytest.mark.parametrize(
    ("delay_s", "rate", "late"), [(30e-9, RATE, 3), (4e-9, RATE, 1), (4e-9, 5 * RATE, 2), (0.2e-9, 50 * RATE, 1)]
)
def test_a_cable_delays_by_parts_of_a_sample(delay_s: float, rate: float, late: int) -> None:
    bench = Bench(cable=Cable(delay_s=delay_s))
    codes = noise_like(100)
    points = round(100 * rate / RATE)
    bench.window(points, rate)
    whole = np.repeat(expected(codes), round(rate / RATE))
    np.testing.assert_allclose(bench.shot(codes), np.concatenate([[whole[0]] * late, whole[:-late]]), atol=0.51 * LSB)


def test_bursts_of_several_cycles_and_free_running() -> None:
    bench = Bench()
    codes = noise_like(100)
    bench.window(400)
    bench.ask(bench.awg, "BURS:NCYC 3")
    once = expected(codes)
    np.testing.assert_allclose(bench.shot(codes), [*once, *once, *once, *[once[0]] * 100], atol=0.51 * LSB)
    bench.ask(bench.awg, "BURS:STAT 0")
    bench.ask(bench.scope, ":DIG CHAN1;*OPC?")
    np.testing.assert_allclose(bench.read(), np.tile(once, 4), atol=0.51 * LSB)


def test_an_open_end_doubles_the_volts_and_output_off_is_zero() -> None:
    bench = Bench(node=Amplifier(gain=0.25), cable=Cable(load_ohm=math.inf))
    codes = noise_like(100)
    bench.window(100)
    np.testing.assert_allclose(bench.shot(codes), expected(codes), atol=0.51 * LSB)
    bench.ask(bench.awg, "OUTP1 OFF")
    np.testing.assert_allclose(bench.shot(codes), 0, atol=0.51 * LSB)


@pytest.mark.parametrize("unplug", ["sync", "output", "level", "source"])
def test_no_edge_no_record(unplug: str) -> None:
    bench = Bench()
    bench.window(100)
    bench.upload(noise_like(100))
    {
        "sync": lambda: bench.plant.set("sync.connected", 0),
        "output": lambda: bench.ask(bench.awg, "OUTP:SYNC OFF"),
        "level": lambda: bench.ask(bench.scope, ":TRIG:EDGE:LEV 4"),
        "source": lambda: bench.ask(bench.awg, "OUTP:SYNC:SOUR CH2"),
    }[unplug]()
    bench.ask(bench.scope, ":SING")
    bench.ask(bench.awg, "*TRG")
    assert bench.ask(bench.scope, ":OPER:COND?;:TER?") == "+40;+0"


def test_digitize_in_one_session_trigger_in_another() -> None:
    bench = Bench()
    bench.window(100)
    bench.upload(noise_like(100))
    answers: list[bytes | None] = []
    waiting = threading.Thread(target=lambda: answers.append(bench.scope.execute(b":DIG CHAN1;*OPC?")), daemon=True)
    waiting.start()
    while not bench.scope.waiting:
        time.sleep(0.001)
    bench.awg.trigger()
    waiting.join(5)
    assert answers == [b"1"]
    np.testing.assert_allclose(bench.read(), expected(noise_like(100)), atol=0.51 * LSB)


def test_a_falling_edge_comes_in_the_middle() -> None:
    bench = Bench()
    bench.window(100)
    bench.ask(bench.scope, ":TRIG:EDGE:SLOP NEG")
    codes = noise_like(100)
    np.testing.assert_allclose(bench.shot(codes)[:50], expected(codes)[50:], atol=0.51 * LSB)


def test_trigger_on_the_signal() -> None:
    bench = Bench()
    codes = np.concatenate([np.zeros(50), np.full(50, 16384), np.zeros(100)]).astype(np.int16)
    bench.window(40, start_s=-100e-9)
    bench.ask(bench.scope, ":TRIG:EDGE:SOUR CHAN1;LEV 0.25")
    np.testing.assert_allclose(bench.shot(codes), [0] * 10 + [0.5] * 30, atol=LSB)
    bench.ask(bench.scope, ":TRIG:EDGE:SLOP NEG")
    np.testing.assert_allclose(bench.shot(codes), [0.5] * 10 + [0] * 30, atol=LSB)
    bench.ask(bench.scope, ":TRIG:EDGE:LEV 0.9;:SING")
    bench.ask(bench.awg, "*TRG")
    assert bench.ask(bench.scope, ":TER?") == "+0"


def test_a_forced_trigger_sees_the_resting_level() -> None:
    bench = Bench()
    codes = noise_like(100)
    bench.upload(codes)
    bench.window(100)
    bench.ask(bench.scope, ":SING;:TRIG:FORC")
    np.testing.assert_allclose(bench.read(), expected(codes)[0], atol=0.51 * LSB)


def test_two_channels_play_together() -> None:
    lock = threading.Condition()
    awg, scope = Keysight33600(lock=lock), InfiniiVision(lock=lock, adc_bits=12)
    plant = Plant([Wire(awg, Amplifier(), scope), Wire(awg, Amplifier(gain=-0.5), scope, 2, 3)])
    for n in (1, 2):
        awg.execute(f"SOUR{n}:FUNC DC;:SOUR{n}:VOLT:OFFS {n};:OUTP{n} 1;:SOUR{n}:BURS:STAT 1;:TRIG{n}:SOUR BUS".encode())
    awg.execute(b"OUTP:SYNC 1")
    scope.execute(b":TRIG:SWE NORM;:TRIG:EDGE:SOUR EXT;:TIM:RANG 1e-6;:CHAN1:RANG 8;:CHAN3:RANG 8;DISP 1;:WAV:FORM ASC;:SING")
    awg.execute(b"*TRG")
    assert plant.shots == 1
    for source, level in ((1, 0.5), (3, -1.0)):
        answer = scope.execute(f":WAV:SOUR CHAN{source};DATA?".encode())
        assert answer is not None
        assert float(answer[10:25]) == pytest.approx(level, abs=2e-3)
    plant.set("node2.gain", 0.25)
    assert plant.get("node2.gain") == 0.25
    assert plant.get("node.gain") == 0.5


def test_noise_of_a_shot_is_its_own_and_can_be_repeated() -> None:
    def run(bench: Bench, shots: int) -> list[NDArray[np.float64]]:
        return [bench.shot(noise_like(200)) for _ in range(shots)]

    def made() -> Bench:
        bench = Bench(node=Amplifier(noise=0.05, walk=0.01), noise_v=0.01)
        bench.window(200)
        return bench

    first, second = made(), made()
    whole = run(first, 4)
    assert not np.array_equal(whole[0], whole[1])
    half = run(second, 2)
    third = made()
    third.plant.restore(unpacked(json.loads(json.dumps(packed(second.plant.snapshot())))))
    for a, b in zip(whole, half + run(third, 2), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ContractError):
        third.plant.restore({"shot": "x"})


def test_front_end_noise_has_the_right_size() -> None:
    bench = Bench()
    bench.window(20_000)
    bench.plant.set("scope.noise_v", 0.02)
    assert bench.shot(np.zeros(20_000, dtype=np.int16)).std() == pytest.approx(0.02, rel=0.03)


def test_parameters_of_the_plant() -> None:
    bench = Bench(node=Amplifier(walk=0.1))
    bench.window(100)
    zeros = np.zeros(100, dtype=np.int16)
    bench.shot(zeros)
    plant, drifted = bench.plant, bench.plant.get("state.0")
    assert drifted != 0
    plant.set("node.noise", 0.1)
    assert plant.get("state.0") == drifted  # another noise does not undo the drift
    plant.set("node.noise", 0)
    plant.set("node.offset", 0.3)
    assert plant.get("state.0") == pytest.approx(0.3)  # another operating point does
    assert bench.shot(zeros).mean() == pytest.approx(0.3, abs=LSB)
    plant.set("state.0", -0.2)
    assert bench.shot(zeros).mean() == pytest.approx(-0.2, abs=LSB)
    plant.set("cable.delay_s", 1e-8)
    plant.set("cable.load_ohm", 1e6)
    assert (plant.get("cable.delay_s"), plant.get("cable.load_ohm"), plant.get("sync.connected")) == (1e-8, 1e6, 1.0)
    assert all(math.isfinite(plant.get(path)) for path in plant.paths())


def test_the_time_of_the_plant_goes_on_by_what_its_node_lives_through() -> None:
    bench = Bench()
    zeros = np.zeros(1000, dtype=np.int16)
    bench.shot(zeros)
    first_s = bench.plant.get("time_s")
    bench.shot(zeros)
    assert bench.plant.get("time_s") == pytest.approx(2 * first_s)
    assert first_s > 0
    with pytest.raises(ConfigError, match="cannot be set"):
        bench.plant.set("time_s", 0.0)


@pytest.mark.parametrize("path", ["node.gian", "gain", "node3.gain", "state.4", "", "cable.delay"])
def test_an_unknown_parameter_is_named(path: str) -> None:
    bench = Bench()
    with pytest.raises(ConfigError, match=r"node\.gain"):
        bench.plant.get(path)
    with pytest.raises(ConfigError):
        bench.plant.set(path, 1.0)


def test_a_value_the_node_refuses_changes_nothing() -> None:
    bench = Bench()
    with pytest.raises(ConfigError, match="gain must not be 0"):
        bench.plant.set("node.gain", 0.0)
    assert bench.plant.get("node.gain") == 0.5


def test_outputs_are_logged() -> None:
    bench = Bench()
    bench.ask(bench.awg, "OUTP1 ON;OUTP1 OFF;OUTP2 ON")
    bench.awg.reboot()
    assert [(e.time_s, e.channel, e.on) for e in bench.plant.log] == [
        (12.5, 1, True),
        (12.5, 1, False),
        (12.5, 2, True),
        (12.5, 2, False),
    ]
    assert bench.plant.log[0].box == bench.awg.name


def test_benches_that_make_no_sense() -> None:
    lock = threading.Condition()
    awg, scope = Keysight33600(lock=lock), InfiniiVision(lock=lock)
    with pytest.raises(ConfigError, match="needs a wire"):
        Plant([])
    with pytest.raises(ConfigError, match="one lock"):
        Plant([Wire(Keysight33600(), Amplifier(), scope)])
    with pytest.raises(ConfigError, match="one scope channel"):
        Plant([Wire(awg, Amplifier(), scope), Wire(awg, Amplifier(), scope, 2)])


def test_the_sync_of_the_first_generator_starts_the_others_that_wait_for_it() -> None:
    lock = threading.Condition()
    awg, other = Keysight33600(lock=lock), Keysight33600("SECOND", lock=lock)
    scope = InfiniiVision(lock=lock, adc_bits=12)
    cable = Cable(20e-9)
    plant = Plant([Wire(awg, IqModulator(noise=0.0), scope, inputs=(Input(other, 2, cable),), outputs=(Output(2, 10e-9),))])
    codes = noise_like(64)
    payload = codes.astype("<i2").tobytes()
    for box, n, source in ((awg, 1, "BUS"), (other, 2, "EXT")):
        box.execute(
            f":FORM:BORD SWAP;:SOUR{n}:FUNC ARB;:SOUR{n}:FUNC:ARB:FILT OFF;SRAT 100E6;:SOUR{n}:VOLT 4;:OUTP{n} ON".encode()
        )
        box.execute(
            f":SOUR{n}:BURS:STAT 1;MODE TRIG;NCYC 1;:TRIG{n}:SOUR {source};:OUTP:SYNC:SOUR CH{n};:OUTP:SYNC ON".encode()
        )
        box.execute(b"SOUR%d:DATA:ARB:DAC W,#3%d%s" % (n, len(payload), payload))
        box.execute(f"SOUR{n}:FUNC:ARB W".encode())
        assert box.execute(b"SYST:ERR?") == b'+0,"No error"'
    scope.execute(b":TRIG:SWE NORM;:TRIG:EDGE:SOUR EXT;LEV 0.5;:CHAN2:DISP 1;:CHAN1:RANG 0.5;OFFS 0.2;:CHAN2:RANG 0.5;OFFS 0.2")
    scope.execute(b":WAV:FORM WORD;BYT LSBF;POIN:MODE RAW;:TIM:RANG 5E-7;POS 2.5E-7;:WAV:POIN 50")

    def shot(n: int) -> NDArray[np.float64]:
        assert scope.execute(b":SING;:AER?") == b"+1"
        awg.execute(b"*TRG")
        scope.execute(f":WAV:SOUR CHAN{n}".encode())
        fields = [float(f) for f in (scope.execute(b":WAV:PRE?") or b"").split(b",")]
        words = np.frombuffer((scope.execute(b":WAV:DATA?") or b"")[10:], "<u2").astype(float)
        return (words - fields[9]) * fields[7] + fields[8]

    volts = torch.from_numpy(codes * (2 / 32767))
    together = torch.stack([volts, torch.cat([volts[:1].expand(2), volts[:-2]])], 1)
    due = IqModulator().ideal(together)
    assert np.abs(shot(1) - due[:50, 0].numpy()).max() < 2e-3
    assert np.abs(shot(2)[1:] - due[:49, 1].numpy()).max() < 2e-3  # read one sample later
    assert plant.get("cable.delay2_s") == 20e-9
    state = plant.snapshot()
    plant.set("cable.delay2_s", 0.0)
    assert np.abs(shot(1) - IqModulator().ideal(torch.stack([volts, volts], 1))[:50, 0].numpy()).max() < 2e-3
    plant.restore(state)
    assert plant.get("cable.delay2_s") == 20e-9

    other.execute(b":TRIG2:SOUR BUS")  # it waits for another trigger, so it rests
    rests = torch.stack([volts, volts[:1].expand(64)], 1)
    assert np.abs(shot(1) - IqModulator().ideal(rests)[:50, 0].numpy()).max() < 2e-3
    other.execute(b"*TRG")  # its own SYNC goes nowhere
    assert scope.execute(b":SING;:AER?") == b"+1"
    other.execute(b"*TRG")
    assert scope.waiting
