"""Benches of the frame shape, from their files: over the wires of a virtual bench, and with packages of makers in a host.

The boxes are served from this process; to a trainer they are boxes on a table, at addresses.
"""

from __future__ import annotations

import json
import math
import os
import signal
import tomllib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from small import Command, until
from test_auxiliaries import on_the_table

from calibration.camera.transmission import TRANSMISSION
from calibration.certificate import Certificate
from drivers.frame.scpi import ScpiFrame
from drivers.links.memory import MemoryLink
from drivers.links.visa_link import VisaLink
from drivers.make_safe import make_safe
from drivers.scpi_camera import ScpiCamera
from drivers.scpi_display import ScpiDisplay
from hil.build.bench import Opened, open_bench
from hil.build.shapes.frame import FrameBench, description
from hil.commands.calibrate import calibrate
from hil.config import modules
from hil.config.bench import bench_of, read_bench
from hil.conformance import check_device
from hil.device import program
from hil.devices.recovery import Ladder, Patience
from hil.devices.resilient import resilient
from hil.errors import Changed, CommandRefused, ConfigError, ContractError, OutOfRange, Saturated
from sim_devices.bench.description import assemble
from sim_devices.bench.served import RunningBench
from sim_devices.instruments.scpi_display import ScpiDisplay as SimulatedDisplay
from sim_devices.scattering import Scattering

BENCH = Path(__file__).parents[2] / "benches" / "slm_camera_wired.toml"
SERIALS = {
    "SIM-DISPLAY-0001": "slm", "SIM-N7776C-0001": "laser", "SIM-E36312A-0001": "lamp", "SIM-E36312A-0002": "flipper",
}  # fmt: skip
SAFE = ["laser", "lamp", "slm", "flipper"]
STANDS = torch.tensor([0.0, 0.5, 1.0, 0.0])
X = torch.randint(0, 256, (3, 36), generator=torch.Generator().manual_seed(4)).float()


def without_noise(table: dict[str, Any]) -> None:
    table["virtual"]["node"]["noise"] = 0.0


@pytest.fixture
def quiet(folder: Path, stack: ExitStack) -> tuple[RunningBench, Opened]:
    """The bench without noise, opened."""
    running = stack.enter_context(on_the_table(BENCH, folder, without_noise))
    return running, stack.enter_context(open_bench(read_bench(folder / "bench.toml")))


def wanted(x: torch.Tensor, optics: torch.Tensor) -> torch.Tensor:
    return Scattering(macropixels=36, pixels=144, specimen=6, noise=0.0).respond((), optics, x, torch.Generator())[0]


def switched(log: Path, on: bool) -> list[str]:
    """Names of the boxes whose outputs went on, or off, in order."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [SERIALS[line["box"].split()[-1]] for line in lines if line.get("on") is on]


@pytest.mark.parametrize("transport", ["hislip", "socket"])
def test_frames_are_those_of_the_twin_and_the_light_is_programmed(transport: str, folder: Path, stack: ExitStack) -> None:
    def change(table: dict[str, Any]) -> None:
        without_noise(table)
        table["virtual"]["transport"] = transport

    running = stack.enter_context(on_the_table(BENCH, folder, change))
    opened = stack.enter_context(open_bench(read_bench(folder / "bench.toml")))
    device = opened.device
    assert device is not None
    assert (device.spec.inputs.size, device.spec.outputs.size, device.spec.provenance) == (36, 144, "twin")
    assert torch.equal(device.forward(X), wanted(X, torch.tensor([0.0, 1.0, 1.0, 0.0])))  # as the file holds it
    for optics in (STANDS, torch.tensor([1.0, 0.25, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.0, 0.7])):
        program(device, optics)
        assert device.forward(X) == pytest.approx(wanted(X, optics), abs=1.01)  # type: ignore[arg-type]
    laser, camera = (running.boxes[name] for name in ("laser", "camera"))
    assert laser.outputs()["1"] == {"on": True, "low_v": 0.0, "high_v": 0.0}
    assert camera.snapshot()["exposure"] == 5e-3
    for wrong in (torch.tensor([0.0, 1.1, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 0.0])):
        with pytest.raises(OutOfRange):
            program(device, wrong)
    assert camera.snapshot()["exposure"] == 5e-3


def test_a_mask_is_programmed_and_stays_after_a_power_cut(folder: Path, stack: ExitStack) -> None:
    running = stack.enter_context(on_the_table(BENCH.with_name("phase_mask_camera.toml"), folder, without_noise))
    opened = stack.enter_context(open_bench(read_bench(folder / "bench.toml")))
    inner: Any = opened.device
    device = resilient(inner, lambda rungs: Ladder(rungs, Patience(), lambda kind, **facts: None))
    assert inner.spec.params.size == 36
    x, mask = (2 * math.pi * torch.rand(n, 36, generator=torch.Generator().manual_seed(n)) for n in (3, 1))
    gray = ((x.double() + mask.double()) * 256 / (2 * math.pi)).round() % 256
    plain = device.forward(x)
    program(device, mask[0])
    right = device.forward(x)
    assert torch.equal(right, wanted(gray.float(), STANDS))
    assert not torch.equal(right, plain)
    for cut in ("slm", "camera", "laser"):
        running.boxes[cut].reboot()
        inner.attend()
        assert torch.equal(device.forward(x), right), cut


def test_a_mask_and_a_light_that_is_programmed_are_refused_together(folder: Path) -> None:
    text = BENCH.read_text(encoding="utf-8").replace("saturated = 0.05", 'saturated = 0.05\ndrive = "phase"\nmask = true')
    (folder / "bench.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="both") as refusal:
        read_bench(folder / "bench.toml")
    assert "[frame] mask" in str(refusal.value)


def test_a_power_cut_and_another_hand_are_put_right_with_the_light_as_it_was(quiet: tuple[RunningBench, Opened]) -> None:
    running, opened = quiet
    inner: Any = opened.device
    told: list[str] = []
    device = resilient(inner, lambda rungs: Ladder(rungs, Patience(), lambda kind, **facts: told.append(kind)))
    optics = torch.tensor([0.0, 0.5, 0.5, 0.2])
    program(device, optics)
    right = device.forward(X)
    assert right == pytest.approx(wanted(X, optics), abs=1.01)  # type: ignore[arg-type]
    for cut in ("slm", "camera", "lamp"):
        running.boxes[cut].reboot()
        inner.attend()  # else it is seen within [panel] every
        assert torch.equal(device.forward(X), right), cut
    boxes: Any = running.boxes
    boxes["camera"].press(":CAM:EXP 0.001")
    with pytest.raises(Changed, match="exposure"):
        inner.forward(X)
    assert torch.equal(device.forward(X), right)
    assert told.count("recovery") == 4


def test_noise_goes_on_where_a_snapshot_of_the_plant_was_taken() -> None:
    with open_bench(read_bench(BENCH)) as opened:
        device: Any = opened.device
        device.forward(X)
        state = device.snapshot()
        after = [device.forward(X) for _ in range(2)]
        assert not torch.equal(*after)
        device.restore(json.loads(json.dumps(state)))
        assert torch.equal(device.forward(X), after[0])


def test_all_is_on_and_off_in_order_also_after_an_error(folder: Path, stack: ExitStack) -> None:
    stack.enter_context(on_the_table(BENCH, folder))
    log = folder / "bench.log"
    with pytest.raises(KeyboardInterrupt), open_bench(read_bench(folder / "bench.toml")) as opened:  # noqa: PT012
        assert opened.device is not None
        opened.device.forward(X)
        assert switched(log, on=True) == ["flipper", "lamp", "laser", "slm"]
        os.kill(os.getpid(), signal.SIGINT)
    assert switched(log, on=False) == SAFE


def test_a_calibration_that_is_killed_leaves_the_laser_off_first_and_the_display_at_rest(
    folder: Path, stack: ExitStack
) -> None:
    running = stack.enter_context(on_the_table(BENCH, folder))
    log = folder / "bench.log"
    command = Command("calibrate", folder / "bench.toml", "--out", folder / "c")
    assert until(lambda: (log.is_file() and len(switched(log, on=True)) == 4) or command.poll() is not None), command.said()
    command.kill()
    assert until(lambda: len(switched(log, on=False)) == 4), command.said()
    assert switched(log, on=False) == SAFE
    slm: Any = running.boxes["slm"]
    assert (slm.shows() == 0).all()


def test_modulator_medium_and_camera_are_calibrated_over_their_wires(folder: Path, stack: ExitStack) -> None:
    def smaller(table: dict[str, Any]) -> None:
        for area, side in (("show", 4), ("look", 8)):
            table[area] = {"rows": side, "columns": side}
        table["virtual"]["node"] |= {"macropixels": 16, "pixels": 64}

    stack.enter_context(on_the_table(BENCH, folder, smaller))
    saved = calibrate(folder / "bench.toml", folder / "calibrations", 3, Console(quiet=True))
    made = Certificate.load_good(saved)
    assert [step.name for step in made.steps] == ["dark frame", "flat field", "phase table", "registration", "transmission"]
    assert made.instruments["camera"].serial == "SIM-CAMERA-0001"
    assert made.settings["optics"]["laser"]["of"] == "laser.power"
    twin = Scattering(macropixels=16, pixels=64, specimen=6)
    stroke = made.steps[2].estimates["stroke"]
    true = twin.phase(torch.full((1, 16), 255.0))[0, 0] - twin.phase(torch.zeros(1, 16))[0, 0]
    assert stroke.away(float(true)) < 5
    whole = Certificate.load(saved).step(TRANSMISSION)
    assert whole is not None
    assert whole.figures["correlation_worst"] > 0.97
    assert switched(folder / "bench.log", on=False)[-4:] == SAFE


def boxes_and_frame(saturated: float = 0.9, exposures: bool = True) -> tuple[dict[str, Any], ScpiFrame]:
    """The boxes of the bench, without wires, and the device of two of them."""
    bench = read_bench(BENCH)
    assert isinstance(bench, FrameBench)
    boxes: dict[str, Any] = dict(assemble(description(bench)).boxes)
    settings = type(bench.timing)(exposure_s=10e-3, saturated=saturated, rest_level=9)
    display, camera = ScpiDisplay(MemoryLink(boxes["slm"])), ScpiCamera(MemoryLink(boxes["camera"]))
    return boxes, ScpiFrame(display, camera, *bench.areas, settings, exposures)


def test_it_keeps_the_contract_of_a_device() -> None:
    for exposures in (True, False):
        assert check_device(lambda on=exposures: boxes_and_frame(exposures=on)[1]).passed  # type: ignore[misc]


def test_what_the_display_shows_is_read_back_and_the_guardian_lets_it_rest_over_a_wire_of_its_own() -> None:
    boxes, device = boxes_and_frame()
    slm = boxes["slm"]
    device.forward(X)
    assert slm.shows()[0, 0] == int(X[-1, 0])
    display, _ = device.own
    for image, kind in ((np.zeros((2, 2), np.uint8), ContractError), (np.zeros(display.shape, np.uint16), ContractError)):
        with pytest.raises(kind, match="not an image of this display"):
            display.write(image)
    slm.shows = lambda: slm._image + 1  # a pixel that is stuck
    with pytest.raises(CommandRefused, match="did not take the image"):
        device.forward(X)
    del slm.shows
    device.close()
    assert (slm.shows() == 9).all()
    with pytest.raises(ContractError, match="closed"):
        device.program(torch.tensor([0.5]))


def test_a_level_that_the_display_does_not_have_is_not_sent() -> None:
    box = SimulatedDisplay(levels=16)
    display = ScpiDisplay(MemoryLink(box))
    with pytest.raises(OutOfRange, match="0 to 15"):
        display.write(np.full(display.shape, 16, np.uint8))
    assert box.outputs()["1"]["on"] is False  # type: ignore[index]


@pytest.mark.parametrize(
    ("fault", "sort"),
    [
        ({"kind": "flip", "bits": 3, "match": ":CAM:FRAM"}, "Desync"), ({"kind": "truncate", "match": ":CAM:FRAM"}, "BadBlock"),
        ({"kind": "drop", "match": ":CAM:FRAM"}, ""), ({"kind": "stale", "seconds": 0, "match": ":CAM:FRAM"}, ""),
        ({"kind": "duplicate", "match": ":CAM:FRAM"}, ""), ({"kind": "mangle", "bits": 2, "match": ":DISP:IMAG"}, ""),
        ({"kind": "reboot", "seconds": 0.1, "match": ":DISP:IMAG"}, ""), ({"kind": "reset", "match": ":CAM:FRAM"}, ""),
    ],
    ids=["flip", "truncate", "drop", "stale", "duplicate", "mangle", "reboot", "reset"],
)  # fmt: skip
def test_a_fault_on_a_wire_is_seen_and_the_shot_is_repeated_whole(
    fault: dict[str, Any], sort: str, folder: Path, stack: ExitStack
) -> None:
    """No frame is ever that of another image: the answers are those of the twin, whatever the wire did."""

    def faulty(table: dict[str, Any]) -> None:
        without_noise(table)
        box = "slm" if "DISP" in fault["match"] else "camera"
        table["virtual"]["faults"] = [{"box": box, "after": 4, "times": 1, **fault}]
        for name in ("slm", "camera"):
            table["instruments"][name]["timeout_s"] = 0.3

    stack.enter_context(on_the_table(BENCH, folder, faulty))
    opened = stack.enter_context(open_bench(read_bench(folder / "bench.toml")))
    inner: Any = opened.device
    told: list[dict[str, Any]] = []
    device = resilient(
        inner, lambda rungs: Ladder(rungs, Patience(), lambda kind, **facts: told.append({"kind": kind, **facts}))
    )
    wanted_of = wanted(X, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    for _ in range(4):
        assert torch.equal(device.forward(X), wanted_of)
    kinds = [one["kind"] for one in told]
    assert kinds.count("recovery") == 1 or (kinds == [] and fault["kind"] == "duplicate"), told
    assert sort in str(told), told


def test_saturated_frames_are_no_measurement() -> None:
    boxes, device = boxes_and_frame(saturated=0.01)
    device.forward(X)
    boxes["camera"].sees = lambda exposure: np.full(boxes["camera"].shape, 5000.0)
    with pytest.raises(Saturated):
        device.forward(X)


PACKAGE = """
import os

import numpy as np


class Panel:
    shape, levels, provenance = (8, 8), 256, "twin"

    def __init__(self, log: str, crash: int = -1) -> None:
        self.log, self.crash, self.shown = log, crash, np.zeros(self.shape, np.uint8)

    def note(self, what):
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {what}\\n")

    def write(self, image):
        self.note(f"shows {int(image.max())}")
        if int(image.max()) == self.crash and not os.path.exists(self.log + ".crashed"):
            open(self.log + ".crashed", "w").close()
            os.abort()
        self.shown = image

    def close(self):
        self.note("closed")


class Eye:
    shape, levels, provenance = (8, 8), 256, "twin"

    def __init__(self, display: Panel, serial: str = "E1") -> None:
        self.display, self.exposure_s = display, 1.0

    def read(self):
        return (self.display.shown * min(self.exposure_s, 1.0)).astype(np.uint8)

    def close(self):
        pass
"""
HOSTED = """
name = "packaged"
shape = "frame"
[instruments.slm]
use = "maker:Panel"
log = "{log}"
[instruments.camera]
use = "maker:Eye"
[node]
drive = "slm"
read = "camera"
[frame]
exposure = "500 ms"
saturated = 0.5
[show]
rows = 4
columns = 4
[look]
rows = 4
columns = 4
[guardian]
silence_s = 12.0
"""
LASER = """
[instruments.laser]
use = "drivers.keysight_n7776c:KeysightN7776C"
resource = "{laser}"
set = {{ power = "10 mW" }}
[instruments.lamp]
use = "drivers.keysight_e36300:KeysightE36312A"
resource = "{lamp}"
channels = [1]
set = {{ voltage = "0 V" }}
[instruments.flipper]
use = "drivers.keysight_e36300:KeysightE36312A"
resource = "{flipper}"
channels = [1]
set = {{ voltage = "0 V" }}
[optics]
mirror = {{ of = "flipper.voltage", full = "5 V" }}
laser = {{ of = "laser.power", full = "10 mW" }}
lamp = {{ of = "lamp.voltage", full = "5 V" }}
[safe]
order = ["laser", "slm", "lamp", "flipper"]
"""
TRAINING = """
[data]
train_examples = 64
[network]
widths = [64, 16, 10]
[device]
bench = "bench.toml"
[encode]
gain = 100.0
offset = 100.0
overflow = "clip"
[decode]
zero = 60.0
scale = 60.0
[learner]
use = "adfa"
[train]
epochs = {epochs}
batch = 16
threads = 1
"""


@pytest.fixture
def maker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the package of a maker, whose log it returns."""
    log = folder / "maker.log"
    (folder / "maker.py").write_text(PACKAGE, encoding="utf-8")
    monkeypatch.setattr(modules, "_found", {})
    monkeypatch.setattr(modules, "_folders", [])
    monkeypatch.chdir(folder)
    return log


def said(log: Path) -> list[str]:
    return [line.split(" ", 1)[1] for line in log.read_text(encoding="utf-8").splitlines()]


def owners(log: Path) -> set[int]:
    return {int(line.split()[0]) for line in log.read_text(encoding="utf-8").splitlines()}


def test_a_package_of_a_maker_lives_in_a_host(folder: Path, maker: Path) -> None:
    (folder / "bench.toml").write_text(HOSTED.format(log=maker), encoding="utf-8")
    with open_bench(read_bench(folder / "bench.toml"), folder) as opened:
        device = opened.device
        assert device is not None
        assert (opened.provenance, device.spec.provenance) == ("twin", "twin")
        assert device.forward(torch.full((2, 16), 100.0)).tolist() == [[50.0] * 16] * 2  # of 500 ms a half
        assert "maker" in opened.resources["slm"]
        opened.guard.beat()
    assert os.getpid() not in owners(maker)
    assert said(maker)[-2:] == ["shows 0", "closed"]
    assert (folder / "host.jsonl").is_file()


def test_a_host_and_the_guardian_make_all_safe_when_the_trainer_is_killed(folder: Path, maker: Path, stack: ExitStack) -> None:
    running = stack.enter_context(on_the_table(BENCH, folder))
    (folder / "bench.toml").write_text((HOSTED + LASER).format(log=maker, **running.resources), encoding="utf-8")
    (folder / "e.toml").write_text(TRAINING.format(epochs=500), encoding="utf-8")
    log = folder / "bench.log"
    command = Command("train", folder / "e.toml", "--run", folder / "r")
    assert until(lambda: (maker.is_file() and len(said(maker)) > 20) or command.poll() is not None), command.said()
    assert switched(log, on=True) == ["laser", "lamp", "flipper"]
    command.kill()
    assert until(lambda: len(switched(log, on=False)) == 3 and said(maker)[-1] == "closed", 15.0), command.said()
    assert switched(log, on=False) == ["laser", "lamp", "flipper"]
    assert said(maker)[-2] == "shows 0"


def test_the_light_of_a_hosted_pair_is_programmed_and_it_ends_in_order(folder: Path, maker: Path, stack: ExitStack) -> None:
    running = stack.enter_context(on_the_table(BENCH, folder))
    (folder / "bench.toml").write_text(
        (HOSTED + LASER).replace("log =", "crash = 137\nlog =").format(log=maker, **running.resources), encoding="utf-8"
    )
    with open_bench(read_bench(folder / "bench.toml")) as opened:
        device = opened.device
        assert device is not None
        assert device.spec.params is not None
        x = torch.full((1, 16), 200.0)
        told: list[str] = []
        device = resilient(device, lambda rungs: Ladder(rungs, Patience(), lambda kind, **facts: told.append(kind)))  # type: ignore[arg-type]
        program(device, torch.tensor([0.0, 0.5, 0.3, 0.0]))
        assert float(device.forward(x).mean()) == 50.0  # a quarter: of 500 ms a half
        assert running.boxes["laser"].outputs()["1"]["high_v"] == pytest.approx(3e-3)  # type: ignore[index]
        assert opened.instruments["slm"].serial.startswith("SIM-")
        assert [*opened.resources] == ["slm", "camera", "laser", "lamp", "flipper"]
        assert said(maker)[-1] == "shows 200"
        assert float(device.forward(torch.full((1, 16), 137.0)).mean()) == 34.0  # its package crashes; a fresh host repeats it
        assert told[-1] == "recovery"
        assert len(owners(maker)) == 2
        assert running.boxes["laser"].outputs()["1"]["high_v"] == pytest.approx(3e-3)  # type: ignore[index]
    assert switched(folder / "bench.log", on=False)[-3:] == ["laser", "lamp", "flipper"]
    assert said(maker)[-2:] == ["shows 0", "closed"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t["node"].update(read="eye"), r"\[node\] read: no such instrument"),
        (lambda t: t["show"].update(rows=0), r"\[show\]"),
        (lambda t: t["node"].update(drive="camera", read="slm"), "is not a display"),
        (lambda t: t["frame"].update(exposur="1 ms"), "exposur"),
        (lambda t: t["optics"]["lamp"].update(of="bulb.voltage"), r"\[optics\] lamp: no instrument beside the node"),
        (lambda t: t["virtual"].pop("laser"), r"no \[virtual.laser\]"),
        (lambda t: t["instruments"]["camera"].update(use="drivers.genicam:Camera"), "the other only the package"),
        (lambda t: t["instruments"]["laser"].pop("set"), "instruments without a role"),
    ],
)
def test_what_the_file_says_wrong_is_refused_before_anything_is_opened(
    change: Callable[[dict[str, Any]], Any], told: str
) -> None:
    table = tomllib.loads(BENCH.read_text(encoding="utf-8"))
    change(table)
    with pytest.raises(ConfigError, match=told):
        bench_of(table, BENCH)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t["virtual"]["slm"].update(rows=61), "does not fit the display"),
        (lambda t: t["virtual"]["node"].update(use="sim_devices.mzi_mesh:MZIMesh") or [
            t["virtual"]["node"].pop(key) for key in ("macropixels", "pixels")], "has no optics"),
    ],
)  # fmt: skip
def test_a_node_that_does_not_fit_between_display_and_camera_is_refused(
    change: Callable[[dict[str, Any]], Any], told: str
) -> None:
    table = tomllib.loads(BENCH.read_text(encoding="utf-8"))
    change(table)
    bench = bench_of(table, BENCH)
    assert isinstance(bench, FrameBench)
    with pytest.raises(ConfigError, match=told):
        assemble(description(bench))


@pytest.mark.parametrize(
    ("of", "full", "kind", "told"),
    [("laser.powr", "10 mW", ConfigError, "did you mean power"), ("laser.power", "30 mW", OutOfRange, r"\[optics\] laser")],
)
def test_a_number_that_an_instrument_does_not_have_is_refused_with_outputs_off(
    of: str, full: str, kind: type[Exception], told: str, folder: Path, stack: ExitStack
) -> None:
    def wrong(table: dict[str, Any]) -> None:
        table["optics"]["laser"] = {"of": of, "full": full}

    stack.enter_context(on_the_table(BENCH, folder, wrong))
    with pytest.raises(kind, match=told), open_bench(read_bench(folder / "bench.toml")):
        raise AssertionError("it must not be opened")
    assert switched(folder / "bench.log", on=True) == []


def test_make_safe_lets_a_display_rest_that_a_dead_program_left(folder: Path, stack: ExitStack) -> None:
    running = stack.enter_context(on_the_table(BENCH, folder))
    display = ScpiDisplay(VisaLink(running.resources["slm"]))
    display.write(np.full(display.shape, 7, np.uint8))
    (outcome,) = make_safe([display.safe_state()], 0.0)
    assert outcome.verified
    slm: Any = running.boxes["slm"]
    assert (slm.shows() == 0).all()
    display.close()
