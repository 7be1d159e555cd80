"""The waveform Device on instruments made of arrays: planning, alignment, decoding, and every way in which it must refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from array_instruments import STEP_V, ArrayDigitizer, ArrayGenerator, Node, drive
from numpy.typing import NDArray

from drivers.waveform.device import Waveform, WaveformSettings
from drivers.waveform.record import OVERHEAD
from hil.device import Streaming, program
from hil.errors import ConfigError, ContractError, Disconnected, Misaligned, MissedTrigger, OutOfRange, Refused, UnsafeOutputs


def bench(settings: WaveformSettings | None = None, **scope: object) -> tuple[Waveform, ArrayGenerator, ArrayDigitizer]:
    generator = ArrayGenerator()
    digitizer = ArrayDigitizer(generator, **scope)  # type: ignore[arg-type]
    return Waveform(generator, digitizer, settings), generator, digitizer


@pytest.mark.parametrize("reads", [1, 2, 5])
@pytest.mark.parametrize("per_symbol", [1, 4])
@pytest.mark.parametrize("delay_s", [0.0, 37.3e-9, 1.99e-6])
def test_every_value_comes_back_in_its_place(reads: int, per_symbol: int, delay_s: float) -> None:
    settings = WaveformSettings(reads_per_symbol=reads, samples_per_symbol=per_symbol)
    device, _, _ = bench(settings, node=lambda v: 0.5 * np.sin(3 * v), delay_s=delay_s)
    x = drive(7, 30)
    torch.testing.assert_close(device.forward(x), 0.5 * torch.sin(3 * x), atol=1.5 * STEP_V, rtol=0)
    assert device.delay_s == pytest.approx(delay_s, abs=1e-9)
    device.close()


def test_a_batch_that_needs_many_records() -> None:
    generator = ArrayGenerator(most=OVERHEAD + 300)
    device = Waveform(generator, ArrayDigitizer(generator), WaveformSettings(longest_delay_s=1e-6))
    x = drive(11, 101)
    torch.testing.assert_close(device.forward(x), x, atol=STEP_V, rtol=0)
    assert device.stats.records == -(-11 * 101 // 300)
    assert len({len(record) for record in generator.uploads[1:]}) == 1
    device.close()


def test_settling_is_discarded_and_the_rest_averaged() -> None:
    """A node that needs half a symbol: of 4 samples the first two are still on their way."""
    device, _, digitizer = bench(WaveformSettings(reads_per_symbol=4, settle=0.5), delay_s=0.0)

    def slow(v: NDArray[np.float64]) -> NDArray[np.float64]:
        early = np.arange(len(v)) % 4 < 2
        return np.where(early, 0.5 * (v + np.roll(v, 2)), v)

    digitizer.node = slow
    x = drive(3, 33)
    torch.testing.assert_close(device.forward(x), x, atol=STEP_V, rtol=0)
    device.close()


def test_averages_play_the_record_again_and_lower_the_noise() -> None:
    rng = np.random.default_rng(0)
    x = drive(20, 50)
    spread = []
    for averages in (1, 16):
        device, generator, _ = bench(
            WaveformSettings(averages=averages), node=lambda v: v + rng.normal(scale=0.02, size=v.shape)
        )
        spread.append(float((device.forward(x) - x).std()))
        assert (device.stats.records, len(generator.uploads)) == (averages, 2)
        device.close()
    assert spread[1] == pytest.approx(spread[0] / 4, rel=0.15)


@pytest.mark.parametrize("bad", [1.001, -1.001, float("nan"), float("inf")])
def test_a_value_out_of_limits_sends_nothing(bad: float) -> None:
    device, generator, digitizer = bench()
    before = (len(generator.uploads), generator.plays, digitizer.configured)
    x = drive(4, 5)
    x[2, 3] = bad
    with pytest.raises(OutOfRange, match="nothing was sent"):
        device.forward(x)
    assert (len(generator.uploads), generator.plays, digitizer.configured) == before
    device.close()


def test_a_wrong_width_sends_nothing() -> None:
    device, generator, _ = bench(WaveformSettings(width=5))
    plays = generator.plays
    with pytest.raises(OutOfRange, match="wrong number of channels"):
        device.forward(drive(4, 6))
    assert generator.plays == plays
    assert device.forward(drive(4, 5)).shape == (4, 5)
    device.close()


def test_settings_are_sent_once_for_batches_of_one_size() -> None:
    device, _, digitizer = bench()
    device.forward(drive(4, 5))
    before = digitizer.configured
    for seed in range(3):
        device.forward(drive(4, 5, seed=seed))
    assert digitizer.configured == before
    device.close()


def test_an_empty_batch_is_answered_without_a_shot() -> None:
    device, generator, _ = bench()
    plays = generator.plays
    assert device.forward(torch.empty(0, 5)).shape == (0, 5)
    assert generator.plays == plays
    device.close()


def test_answers_come_in_the_order_of_submission() -> None:
    device, _, _ = bench()
    assert isinstance(device, Streaming)
    xs = [drive(6, 7, seed=k) for k in range(5)]
    for x, answer in zip(xs, [device.submit(x) for x in xs], strict=True):
        torch.testing.assert_close(answer.result(), x, atol=STEP_V, rtol=0)
    device.close()


def test_a_batch_changed_after_submission_is_answered_as_submitted() -> None:
    device, _, _ = bench()
    x = drive(6, 7)
    kept, answer = x.clone(), device.submit(x)
    x.zero_()
    torch.testing.assert_close(answer.result(), kept, atol=STEP_V, rtol=0)
    device.close()


def test_a_trigger_that_moved_by_whole_samples_is_followed_and_counted() -> None:
    device, _, digitizer = bench()
    digitizer.delay_s += 20e-9
    x = drive(6, 7)
    torch.testing.assert_close(device.forward(x), x, atol=STEP_V, rtol=0)
    assert device.stats.realigned == 1
    device.close()


def test_a_trigger_that_moved_too_far_is_misaligned() -> None:
    device, _, digitizer = bench()
    digitizer.delay_s += 150e-9
    with pytest.raises(Misaligned):
        device.forward(drive(6, 7))
    device.close()


def test_clocks_that_drift_apart_are_misaligned() -> None:
    device, _, digitizer = bench()
    digitizer.stretch = 1 + 1.5 / 4000
    with pytest.raises(Misaligned, match="belong to each other"):
        device.forward(drive(40, 100))
    device.close()


@pytest.mark.parametrize("node", [lambda v: 0.1 * v, lambda v: -v])
def test_a_marker_that_faded_or_flipped_is_misaligned(node: Node) -> None:
    device, _, digitizer = bench()
    digitizer.node = node
    with pytest.raises(Misaligned, match="faded"):
        device.forward(drive(6, 7))
    device.close()


def test_a_dead_node_is_refused_at_open_and_leaves_the_output_off() -> None:
    generator = ArrayGenerator()
    digitizer = ArrayDigitizer(generator, node=lambda v: 0 * v)
    with pytest.raises(Misaligned, match="marker"):
        Waveform(generator, digitizer)
    assert (generator.on, generator.closed, digitizer.closed) == (False, 1, 1)


def test_a_missed_trigger_answers_nothing_and_the_next_shot_is_set_up_anew() -> None:
    device, _, digitizer = bench()
    x = drive(6, 7)
    device.forward(x)
    before, shots = digitizer.configured, device.stats.shots
    digitizer.missing = True
    with pytest.raises(MissedTrigger):
        device.forward(x)
    assert device.stats.shots == shots
    digitizer.missing = False
    torch.testing.assert_close(device.forward(x), x, atol=STEP_V, rtol=0)
    assert digitizer.configured == before + 1
    device.close()


def test_a_record_longer_than_the_trigger_timeout_is_waited_for() -> None:
    settings = WaveformSettings(symbol_rate_hz=1e3, longest_delay_s=1e-3, trigger_timeout_s=0.5)
    device, _, digitizer = bench(settings, delay_s=0.3e-3)
    assert digitizer.waited_s > 0.5 + 33e-3
    device.forward(drive(10, 100))
    assert 0.5 + 1.0 < digitizer.waited_s < 0.5 + 1.2
    device.close()


def test_the_rungs_set_up_again_after_a_fault() -> None:
    device, generator, _ = bench()
    generator.broken = Disconnected("gone", where="array generator")
    with pytest.raises(Disconnected):
        device.forward(drive(6, 7))
    device.clear()
    with pytest.raises(Disconnected):
        device.identify()
    device.reopen()
    assert device.identify() == "array generator answers; array digitizer answers"
    device.reinstate()
    assert device.verify().startswith("delay")
    x = drive(6, 7)
    torch.testing.assert_close(device.forward(x), x, atol=STEP_V, rtol=0)
    device.close()


def test_close_is_safe_twice_and_refuses_work_afterwards() -> None:
    device, generator, digitizer = bench()
    device.forward(drive(2, 2))
    device.close()
    device.close()
    assert (generator.on, generator.closed, digitizer.closed) == (False, 1, 1)
    with pytest.raises(ContractError, match="closed"):
        device.forward(drive(2, 2))


def test_a_second_ctrl_c_while_closing_still_switches_off(monkeypatch: pytest.MonkeyPatch) -> None:
    device, generator, digitizer = bench()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(device._worker, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        device.close()
    assert (generator.on, generator.closed, digitizer.closed) == (False, 1, 1)


def test_close_does_not_claim_safety_that_it_cannot_verify() -> None:
    device, generator, digitizer = bench()
    generator.broken = Disconnected("gone", where="array generator")
    with pytest.raises(UnsafeOutputs):
        device.close()
    assert digitizer.closed == 1


@pytest.mark.parametrize("levels", [{"marker_high_v": 1.2}, {"rest_v": -3.0}, {"marker_low_v": float("nan")}])
def test_marker_and_rest_keep_the_limits(levels: dict[str, float]) -> None:
    generator = ArrayGenerator()
    with pytest.raises(Refused):
        Waveform(generator, ArrayDigitizer(generator), WaveformSettings(**levels))  # type: ignore[arg-type]
    assert (generator.uploads, generator.plays) == ([], 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"averages": 0},
        {"settle": 1.0},
        {"symbol_rate_hz": 0.0},
        {"reads_per_symbol": 0},
        {"sample_phase": -0.1},
        {"trigger_timeout_s": float("inf")},
        {"longest_delay_s": float("inf")},
        {"marker_threshold": 0.0},
        {"marker_ambiguous": float("nan")},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        WaveformSettings(**wrong)  # type: ignore[arg-type]


def test_stats_are_a_snapshot_that_adds_up() -> None:
    device, _, _ = bench()
    before = device.stats
    device.forward(drive(10, 10))
    after = device.stats
    assert (before.shots, before.symbols) == (0, 0)
    assert (after.shots, after.records, after.symbols) == (1, 1, 100)
    assert after.bytes_up == 2 * (100 + OVERHEAD)
    assert after.bytes_down > 200
    assert after.host_s > 0
    device.close()


def test_program_is_refused_by_a_fixed_node() -> None:
    device, _, _ = bench()
    with pytest.raises(ContractError, match="this node is fixed"):
        program(device, torch.zeros(1))
    device.close()
