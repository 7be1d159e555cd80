"""The driver against the simulated board over a pseudo-terminal: the same bits as the twin called directly, faults or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
import torch
from torch import Tensor, nn

from drivers.links.serial_link import SerialLink
from drivers.read_back import Care
from drivers.scpi import Expect
from drivers.spiking.device import BoardArray, SpikingBoard
from hil import frame_protocol as host
from hil.device import ArraySpec, Device
from hil.encoding import Encode
from hil.errors import (
    CommandRefused,
    ConfigError,
    ContractError,
    Desync,
    HilError,
    InstrumentError,
    LinkError,
    LinkTimeout,
    OutOfRange,
    SwitchedOff,
    UnsafeOutputs,
    WrongInstrument,
)
from hil.network import Layer, Network
from hil.seeding import generator
from sim_devices.instruments import frame_protocol as board_side
from sim_devices.instruments.spiking_board import SpikingBoard as SimulatedBoard
from sim_devices.lif_array import Neuron
from sim_devices.spiking_array import TwinChip
from sim_devices.transports.pty import PtyServer

SPREAD = Neuron(threshold_mismatch=0.1, leak_mismatch=0.1)


class Line:
    """A line to the board that can be told to misbehave: each function sees the bytes and gives what arrives."""

    name = "line with faults"

    def __init__(self, board: SimulatedBoard) -> None:
        self.board = board
        self.up: list[Callable[[bytes], bytes]] = []
        self.down: list[Callable[[bytes], bytes]] = []
        self.replies: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        for fault in self.up[:1]:
            changed = fault(data)
            if changed != data:
                self.up.pop(0)
            data = changed
        reply = self.board.feed(data)
        if reply:
            self.replies.append(reply)
            if self.down:
                reply = self.down.pop(0)(reply)
        return reply


class Bench:
    """A board behind a pty, and a driver for it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def open(self, neuron: Neuron = SPREAD, seed: int = 3, largest: int = 1 << 18, **settings: object) -> SpikingBoard:
        self.line = Line(SimulatedBoard(TwinChip(neuron, seed), largest=largest, gap_s=0.05))
        self.server = PtyServer(self.line)
        self._stack.callback(self.server.close)
        self.server.start()
        return self.connect(**settings)

    def connect(self, **settings: object) -> SpikingBoard:
        link = SerialLink(self.server.port, baud=4_000_000, timeout_s=0.4)
        self._stack.callback(link.close)
        board = SpikingBoard(link, provenance="twin", **settings)  # type: ignore[arg-type]
        self._stack.callback(_close, board)
        return board


def _close(board: SpikingBoard) -> None:
    with suppress(HilError):
        board.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def currents(time: int = 6, batch: int = 5, size: int = 33, seed: int = 0) -> Tensor:
    return torch.randn(time, batch, size, generator=generator(seed, 0, "currents")) * 1.3


def test_a_frame_of_the_host_is_read_by_the_board_and_back() -> None:
    pieces = host.frame(host.Kind.STEP, 0xBEEF, b"abc", memoryview(b"defg"))
    sent = b"".join(pieces)
    assert sent.hex() == "a55a0500efbe07000000" + sent[10:12].hex() + b"abcdefg".hex() + sent[-2:].hex()
    (request,) = board_side.Reassembly(100).feed(sent, 0.0)
    assert (request.kind, request.seq, bytes(request.payload)) == (5, 0xBEEF, b"abcdefg")
    answer = board_side.reply(5, 0xBEEF, b"xyz")
    head = host.head(answer[: host.HEAD_BYTES], "here")
    assert (head.kind, head.code, head.seq) == (0x85, 0, 0xBEEF)
    assert bytes(host.payload(head, answer[host.HEAD_BYTES :], "here")) == b"xyz"


def test_any_flipped_bit_of_a_reply_is_noticed() -> None:
    answer = board_side.reply(5, 7, b"some payload")
    for bit in range(8 * len(answer)):
        wrong = bytearray(answer)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Desync):
            host.payload(host.head(bytes(wrong[:12]), "here"), bytes(wrong[12:]), "here")


@pytest.mark.parametrize(
    "settings",
    [{}, {"leak": 1.0, "v_rest": -1.0}, {"reset": "hard", "v_rest": -0.1, "leak": 0.9}, {"refractory": 2, "v_th": 0.8}],
)
@pytest.mark.parametrize("largest", [1 << 18, 1500, 300])
def test_float32_gives_the_bits_of_the_twin(bench: Bench, settings: dict[str, object], largest: int) -> None:
    twin = TwinChip(Neuron(threshold_mismatch=0.1, leak_mismatch=0.1, **settings), 3).array(ArraySpec(33))  # type: ignore[arg-type]
    array = bench.open(largest=largest, **settings).array(ArraySpec(33))
    for seed in range(2):
        x = currents(seed=seed)
        spikes = array.forward(x)
        assert 0 < spikes.mean() < 1
        assert torch.equal(spikes, twin.forward(x))
        assert torch.equal(array.monitor(), twin.monitor())
    array.reset()
    twin.reset()
    assert torch.equal(array.forward(currents()[:1]), twin.forward(currents()[:1]))


def test_couples_answer_plus_and_minus(bench: Bench) -> None:
    twin = TwinChip(SPREAD, 3).array(ArraySpec(13, True, v_th=0.5, v_rest=-0.5, leak=1.0))
    array = bench.open().array(ArraySpec(13, True, v_th=0.5, v_rest=-0.5, leak=1.0))
    x = currents(9, 3, 13) * 0.5
    spikes = array.forward(x)
    assert set(spikes.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert torch.equal(spikes, twin.forward(x))


def test_noise_is_the_twins_when_whole_steps_fit(bench: Bench) -> None:
    noisy = Neuron(noise=0.4)
    twin, array = TwinChip(noisy, 3).array(ArraySpec(33)), bench.open(noisy, largest=1 << 11).array(ArraySpec(33))
    for _ in range(2):
        assert torch.equal(array.forward(currents()), twin.forward(currents()))
        array.reset()
        twin.reset()


def test_int16_is_the_twin_driven_with_rounded_currents(bench: Bench) -> None:
    twin, array = TwinChip(SPREAD, 3).array(ArraySpec(33)), bench.open(numbers="int16", limit=8.0).array(ArraySpec(33))
    x = currents()
    quantum = torch.tensor(8.0 / 32767)
    rounded = torch.round(x * torch.tensor(32767 / 8.0)) * quantum
    assert float((rounded - x).abs().max()) <= 0.51 * float(quantum)
    assert torch.equal(array.forward(x), twin.forward(rounded))
    assert torch.equal(array.monitor(), twin.monitor().half().float())
    assert array.spec.inputs.high == 8.0


def test_a_network_through_the_line_is_the_network_on_the_twin(bench: Bench) -> None:
    def traces(arrays: list[Device]) -> list[Tensor]:
        torch.manual_seed(0)
        widths = [8, 30, 20]
        layers = [
            Layer(nn.Linear(a, b), device, Encode.onto(device.spec.inputs))
            for a, b, device in zip(widths, widths[1:], arrays, strict=False)
        ]
        net = Network([*layers, Layer(nn.Linear(20, 3))])
        found = []
        for batch in range(2):
            net.reset()
            x = torch.rand(1, 6, 8, generator=generator(batch, 0, "x")).expand(5, 6, 8) * 3
            found += [tensor for trace in net.steps(x, chunk=2) for tensor in trace.outputs]
        return found

    board, chip = bench.open(), TwinChip(SPREAD, 3)
    served = traces([board.array(ArraySpec(30)), board.array(ArraySpec(20))])
    direct = traces([chip.array(ArraySpec(30)), chip.array(ArraySpec(20))])
    assert any(float(tensor.mean()) > 0 for tensor in direct)
    assert all(torch.equal(a, b) for a, b in zip(served, direct, strict=True))


def test_thresholds_are_programmed(bench: Bench) -> None:
    array = bench.open(Neuron()).array(ArraySpec(3))
    array.program(torch.tensor([0.5, 1.0, 2.0]))
    array.reset()
    assert array.spec.params is not None
    assert array.forward(torch.full((8, 1, 3), 1.0)).sum((0, 1)).tolist() == [8, 8, 0]
    with pytest.raises(OutOfRange):
        array.program(torch.tensor([0.5, 0.0, 1.0]))
    with pytest.raises(OutOfRange):
        array.program(torch.tensor([0.5]))


# -- Faults of the line -----------------------------------------------------------------------------------------------


def flipped(at: int) -> Callable[[bytes], bytes]:
    def fault(data: bytes) -> bytes:
        wrong = bytearray(data)
        wrong[at % len(data)] ^= 0x10
        return bytes(wrong)

    return fault


def cut(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: at % len(data)] + data[at % len(data) + 1 :]


def swallowed(data: bytes) -> bytes:
    return b""


def faultless(array: BoardArray, size: int = 33) -> None:
    """Three more passes give what the twin gives, which is told of no fault."""
    twin = TwinChip(SPREAD, 3).array(ArraySpec(size))
    for seed in range(3):
        x = currents(seed=seed, size=size)
        assert torch.equal(array.forward(x), twin.forward(x))


@pytest.mark.parametrize("fault", [flipped(3), flipped(5), flipped(8), flipped(11), flipped(200), flipped(-1)])
def test_a_damaged_request_is_sent_again(bench: Bench, fault: Callable[[bytes], bytes]) -> None:
    board = bench.open()
    array = board.array(ArraySpec(33))
    bench.line.up.append(fault)
    faultless(array)
    assert board.traffic.damaged + board.traffic.late >= 1
    assert board.traffic.repeated >= 1


@pytest.mark.parametrize("fault", [flipped(0), flipped(4), flipped(6), flipped(30), flipped(-1), cut(2), cut(40), swallowed])
def test_a_damaged_or_lost_reply_is_asked_for_again_and_nothing_runs_twice(
    bench: Bench, fault: Callable[[bytes], bytes]
) -> None:
    board = bench.open()
    array = board.array(ArraySpec(33))
    bench.line.down.append(fault)
    faultless(array)
    assert board.traffic.repeated >= 1


@pytest.mark.parametrize("fault", [cut(0), cut(6), cut(100), swallowed])
def test_a_request_with_missing_bytes_is_sent_again(bench: Bench, fault: Callable[[bytes], bytes]) -> None:
    board = bench.open()
    array = board.array(ArraySpec(33))
    bench.line.up.append(fault)
    faultless(array)
    assert board.traffic.repeated >= 1


def test_a_stale_reply_is_not_taken_for_the_one_that_is_due(bench: Bench) -> None:
    board = bench.open()
    array = board.array(ArraySpec(33))
    array.forward(currents(seed=9))
    old = bench.line.replies[-1]
    array.reset()
    bench.line.down.append(lambda reply: old + reply)
    faultless(array)
    assert board.traffic.stale >= 1


def test_a_line_that_stays_noisy_ends_in_an_error_and_the_membranes_are_not_believed(bench: Bench) -> None:
    board = bench.open(retries=2)
    array = board.array(ArraySpec(33))
    before = board.traffic.repeated
    bench.line.down += [flipped(20)] * 3
    with pytest.raises(Desync):
        array.forward(currents())
    assert board.traffic.repeated - before >= 2
    with pytest.raises(ContractError):
        array.forward(currents())
    board.recover()
    with pytest.raises(ContractError):
        array.forward(currents())
    array.reset()
    faultless(array)


def test_a_board_that_falls_silent_ends_in_a_timeout(bench: Bench) -> None:
    board = bench.open(retries=1)
    array = board.array(ArraySpec(33))
    bench.line.down += [swallowed] * 50
    with pytest.raises(LinkTimeout):
        array.forward(currents())
    bench.line.down.clear()


def test_a_rebooted_board_is_noticed_and_set_up_again(bench: Bench) -> None:
    board = bench.open()
    array = board.array(ArraySpec(33))
    array.program(torch.full((33,), 0.7))
    twin = TwinChip(SPREAD, 3).array(ArraySpec(33))
    twin.program(torch.full((33,), 0.7))
    array.forward(currents())
    bench.line.board.reboot()
    with pytest.raises(InstrumentError):
        array.forward(currents())
    board.recover()
    array.reset()
    assert torch.equal(array.forward(currents()), twin.forward(currents()))


def test_a_recovery_that_was_cut_short_is_done_again_whole(bench: Bench) -> None:
    board = bench.open(retries=0)
    array = board.array(ArraySpec(33))
    array.program(torch.full((33,), 0.7))
    bench.line.board.reboot()
    # answered: HELLO, STATUS, HELLO, ALLOCATE; lost on the way up: the thresholds
    seen: list[int] = []

    def no_thresholds(data: bytes) -> bytes:
        seen.append(data[2])
        return b"" if data[2] == host.Kind.PROGRAM else data

    bench.line.up.append(no_thresholds)
    with pytest.raises(LinkError):
        board.recover()
    assert host.Kind.PROGRAM in seen
    board.recover()
    array.reset()
    twin = TwinChip(SPREAD, 3).array(ArraySpec(33))
    twin.program(torch.full((33,), 0.7))
    assert torch.equal(array.forward(currents()), twin.forward(currents()))


def test_a_reboot_while_a_reply_is_due_is_noticed(bench: Bench) -> None:
    board = bench.open()
    array = board.array(ArraySpec(33))

    def reboot(reply: bytes) -> bytes:
        bench.line.board.reboot()
        return b""

    bench.line.down.append(reboot)
    with pytest.raises(InstrumentError, match="rebooted"):
        array.forward(currents())


# -- Safety -----------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_that_is_out_of_limits(bench: Bench) -> None:
    board = bench.open(limit=2.0)
    array = board.array(ArraySpec(4))
    sent = board.traffic.bytes_up
    for bad in (2.1, float("nan"), float("inf")):
        with pytest.raises(OutOfRange):
            array.forward(torch.full((1, 2, 4), bad))
    for shape in ((2, 4), (1, 2, 2, 4)):
        with pytest.raises(ContractError):
            array.forward(torch.zeros(shape))
    with pytest.raises(OutOfRange):
        array.forward(torch.zeros(1, 2, 5))
    with pytest.raises(ContractError):
        array.monitor()
    assert board.traffic.bytes_up == sent
    with pytest.raises(ConfigError):
        bench.open(limit=1000.0)
    with pytest.raises(ConfigError):
        bench.open(numbers="int8")


def test_another_batch_needs_a_reset(bench: Bench) -> None:
    array = bench.open().array(ArraySpec(33))
    array.forward(currents(batch=4))
    with pytest.raises(ContractError):
        array.forward(currents(batch=5))
    array.reset()
    array.forward(currents(batch=5))


def test_settings_that_the_board_does_not_have_are_refused(bench: Bench) -> None:
    board = bench.open()
    with pytest.raises(CommandRefused, match="ALLOCATE"):
        board.array(ArraySpec(4, leak=1.5))
    with pytest.raises(CommandRefused):
        board.array(ArraySpec(1 << 21))


def test_the_watchdog_switches_off_and_reset_switches_on(bench: Bench) -> None:
    board = bench.open(watchdog_s=0.3)
    first, second = board.array(ArraySpec(33)), board.array(ArraySpec(33))
    first.forward(currents())
    second.forward(currents())
    time.sleep(0.4)
    assert not bench.line.board.armed
    with pytest.raises(CommandRefused, match="STEP"):
        first.forward(currents())
    first.reset()
    assert bench.line.board.armed
    with pytest.raises(ContractError):  # its membranes went to rest in the middle of a sequence
        second.forward(currents())
    faultless(first)


@pytest.mark.parametrize("armed_by", [SpikingBoard.arm, SpikingBoard.rearm, SpikingBoard.verify, SpikingBoard.recover])
def test_no_current_flows_without_the_watchdog(bench: Bench, armed_by: Callable[[SpikingBoard], object]) -> None:
    """Also with settings that nobody chose, and after whatever arms the board again."""
    board = bench.open()
    for arm in (lambda board: None, armed_by):
        arm(board)
        assert bench.line.board.armed
        assert bench.line.board._watchdog_s == 60.0


def test_switched_off_by_hand_it_stays_off(bench: Bench) -> None:
    board = bench.open()
    array = board.array(ArraySpec(33))
    board.safe()
    assert not bench.line.board.armed
    array.reset()
    with pytest.raises(CommandRefused, match="STEP"):
        array.forward(currents())
    board.arm()
    array.reset()
    faultless(array)


def test_close_leaves_the_board_off_even_over_a_noisy_line(bench: Bench) -> None:
    board = bench.open()
    array = board.array(ArraySpec(4))
    bench.line.down += [swallowed, flipped(2)]
    array.close()
    assert not bench.line.board.armed
    array.close()
    board.close()


def test_a_board_that_cannot_be_switched_off_is_reported_loudly(bench: Bench) -> None:
    board = bench.open(retries=0)
    bench.server.close()
    with pytest.raises(UnsafeOutputs):
        board.close()


def test_a_constructor_that_fails_after_arming_leaves_the_board_off(bench: Bench) -> None:
    first = bench.open()
    first.close()
    bench.line.down += [bytes, swallowed]  # HELLO is answered, the answer to ARM is lost
    with pytest.raises(LinkTimeout):
        bench.connect(retries=0)
    assert not bench.line.board.armed


@pytest.mark.parametrize("wrong", [{"reset": "warm"}, {"limit": 1e9}, {"expect": Expect(serial="SB0002")}])
def test_a_constructor_that_fails_closes_the_port(bench: Bench, wrong: dict[str, object]) -> None:
    bench.open().close()
    with pytest.raises(HilError):
        bench.connect(**wrong)
    SerialLink(bench.server.port).close()  # held by one program at a time: it would be refused


def test_ctrl_c_while_switching_off_still_switches_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    board = bench.open()
    once = [KeyboardInterrupt()]
    switch = board._switch_off

    def interrupted() -> None:
        if once:
            raise once.pop()
        switch()

    monkeypatch.setattr(board, "_switch_off", interrupted)
    with pytest.raises(KeyboardInterrupt):
        board.close()
    assert not bench.line.board.armed


def test_the_wrong_board_is_refused(bench: Bench) -> None:
    with pytest.raises(WrongInstrument):
        bench.open(expect=Expect(serial="SB0002"))


def test_what_an_earlier_program_left_on_the_line_is_not_believed(bench: Bench) -> None:
    board = bench.open()
    array = board.array(ArraySpec(33))
    twin = TwinChip(SPREAD, 3).array(ArraySpec(33))
    link = board._session._link
    link.write(*host.frame(host.Kind.STATUS, 77))  # asked and never read
    link.close()
    again = bench.connect()
    assert torch.equal(again.array(ArraySpec(33)).forward(currents()), twin.forward(currents()))
    with pytest.raises(LinkError):
        array.forward(currents())


def test_the_spec_tells_what_it_is(bench: Bench) -> None:
    array = bench.open().array(ArraySpec(7, True))
    device: Device = array
    assert device.spec.temporal
    assert device.spec.provenance == "twin"
    assert (device.spec.inputs.size, device.spec.outputs.low) == (7, -1.0)
    empty = device.forward(torch.zeros(0, 2, 7))
    assert empty.shape == (0, 2, 7)


@pytest.mark.parametrize("every_s", [0.0, 60.0])
@pytest.mark.parametrize("way", ["reinstate", "clear", "reopen", "verify"])
def test_a_board_that_a_person_disarmed_stays_disarmed(bench: Bench, every_s: float, way: str) -> None:
    board = bench.open(care=Care(every_s))
    array = board.array(ArraySpec(3))
    array.forward(torch.zeros(2, 1, 3))
    bench.line.board.press("SAFE")
    with pytest.raises(CommandRefused, match="NOT_ARMED"):
        array.forward(torch.zeros(2, 1, 3))
    if way in ("clear", "reopen"):
        getattr(board, way)()
        board.identify()
    for attempt in (board.reinstate, board.reinstate, board.verify, board.recover):
        with pytest.raises(SwitchedOff, match="stays off"):
            attempt()
    assert not bench.line.board.armed


def test_a_board_that_is_disarmed_after_a_pass_is_seen_at_the_next_look(bench: Bench) -> None:
    board = bench.open(care=Care(0.0))
    array = board.array(ArraySpec(3))
    array.forward(torch.zeros(2, 1, 3))
    assert board.held() == {"armed": True, "tripped": False, "arrays": 1}
    answered, press = bench.line.board.feed, bench.line.board.press

    def disarmed_meanwhile(data: bytes | memoryview) -> bytes:
        reply = answered(data)
        press("SAFE")
        return reply

    bench.line.board.feed = disarmed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(SwitchedOff):
        array.forward(torch.zeros(2, 1, 3))


def test_arrays_that_are_gone_are_seen_at_the_next_look_and_set_up_again(bench: Bench) -> None:
    board = bench.open(care=Care(0.0))
    first, second = board.array(ArraySpec(3)), board.array(ArraySpec(2))
    answer = first.forward(torch.ones(2, 1, 3))
    bench.line.board.reboot()
    with pytest.raises((CommandRefused, InstrumentError)):
        second.forward(torch.zeros(2, 1, 2))
    board.reinstate()
    board.verify()
    first.reset()
    assert first.forward(torch.ones(2, 1, 3)).equal(answer)
