"""The command line as a user meets it: exit codes, and messages that say where, got, allowed, outputs, next."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from small import Command, toml, until
from warm import Warm

from hil.cli import run
from hil.commands.train import lines
from hil.run.folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
TWIN = toml(None, "64, 20, 10", train="epochs = 2\nbatch = 64")
BENCH = (ROOT / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8")


class Said(NamedTuple):
    code: int
    out: str
    err: str


def hil(capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    code = run([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return Said(code, out, err)


def experiment(tmp_path: Path, text: str = TWIN) -> Path:
    path = tmp_path / "e.toml"
    path.write_text(text, encoding="utf-8")
    return path


def on_bench(tmp_path: Path, bench: str, text: str = TWIN) -> Path:
    (tmp_path / "b.toml").write_text(bench, encoding="utf-8")
    return experiment(tmp_path, text.replace('use = "mach_zehnder"\nv_pi = "3.5 V"', 'bench = "b.toml"'))


def summary(folder: Path) -> dict[str, object]:
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.drawn
def test_train_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = hil(capsys, "train", experiment(tmp_path), "--run", tmp_path / "r")
    assert said.code == 0, said.err
    assert "report" in said.out
    assert "(twin, seed 1" in said.out
    following = [line.partition("   puts")[0] for line in said.out.splitlines() if line.startswith("next")]
    assert following == [f"next    hil use {tmp_path / 'r'}"]  # its node is on no bench that could be served
    assert hil(capsys, *following[0].split()[2:], "--rounds", 1).code == 0
    found = summary(tmp_path / "r")
    assert found["status"] == "done"
    assert found["provenance"] == "twin"
    # per example two epochs of training, two validations, one test, the sweep and the diagnostics: counted, not estimated
    assert found["device_passes"] == 20 * (2 * 1437 + 2 * 180 + 180) + 201 * 8
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["epoch"], line["split"]) for line in lines] == [
        (1, "train"), (1, "validation"), (2, "train"), (2, "validation"),
    ]  # fmt: skip
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page or "data:image" in page
    assert not re.search(r"""(src|href)=["']https?://""", page)


@pytest.mark.parametrize(("provenance", "served"), [("twin", True), ("measured", False)])
def test_a_run_on_a_virtual_bench_says_how_to_serve_that_bench(tmp_path: Path, provenance: str, served: bool) -> None:
    folder = RunFolder.create(tmp_path / "my run")
    (folder.path / "bench.toml").write_text(BENCH, encoding="utf-8")
    known = {"wall_s": 1.0, "test_accuracy": 0.5, "seed": 0, "best_epoch": 1, "device_passes": 1, "provenance": provenance}
    said = list(lines(folder, known, None))
    assert any(line.startswith(f"next    hil serve '{folder.path}/bench.toml'") for line in said) == served, said


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (TWIN.replace("[learner]", '[learner]\nfeedbak = "x"'), ["[learner]", "feedbak", 'Did you mean "feedback"?']),
        (TWIN.replace("[64, 20, 10]", "[63, 20, 10]"), ["widths [63, 20, 10]", "64 inputs", "write widths = [64"]),
        (TWIN.replace("[64, 20, 10]", '"wide"'), ["[network]", "widths", "wide"]),
        (TWIN.replace("[64, 20, 10]", "[64]"), ["[network]", "widths", "[64]"]),
        (TWIN.replace("widths", "width"), ["[network]", "width", 'Did you mean "widths"?']),
        (TWIN.replace("widths = [64, 20, 10]", ""), ["[network]", "widths is missing"]),
        (TWIN.replace("[device]", '[device]\nchip = "lif"'), ["[device]", "one device", "use and chip"]),
        (TWIN.replace('"3.5 V"', '"3.5 s"'), ["v_pi", "3.5 s", "volt"]),
        (TWIN.replace("mach_zehnder", "mach_zender"), ["mach_zender", "mach_zehnder"]),
        (TWIN + '[optimizer]\nuse = "Adma"', ["[optimizer]", "Adma", "Adam"]),
        (TWIN + '[data]\nuse = "mnits"', ["mnits", "mnist"]),
        (TWIN.replace('period = "7 V"', ""), ["period"]),
    ],
)
def test_wrong_experiments(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, parts: list[str]) -> None:
    said = hil(capsys, "train", experiment(tmp_path, text), "--run", tmp_path / "r")
    assert said.code == 2
    for part in parts:
        assert part in said.err
    assert not (tmp_path / "r").exists()  # nothing is left behind


def test_bad_command_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["trian", "x"],
        ["train"],
        ["resume", tmp_path / "no"],
        ["report"],
        ["report", tmp_path],
        ["describe", "x"],
    ):
        said = hil(capsys, *arguments)
        assert said.code == 2, arguments
        assert said.err


def test_a_run_folder_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = experiment(tmp_path)
    assert hil(capsys, "train", path, "--run", tmp_path / "r").code == 0
    again = hil(capsys, "train", path, "--run", tmp_path / "r")
    assert again.code == 2
    assert "hil resume" in again.err
    assert summary(tmp_path / "r")["status"] == "done"
    assert "finished" in hil(capsys, "resume", tmp_path / "r").err


def test_lists_and_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    everything = hil(capsys, "list").out
    for word in ("mach_zehnder", "adfa", "Keysight33600", "fashion-mnist"):
        assert word in everything
    assert "v_pi_v" in hil(capsys, "describe", "mach_zehnder").out
    assert "feedback" in hil(capsys, "describe", "hil.learners.adfa:ADFA").out


# ---- resume -----------------------------------------------------------------------------------------------------------------


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from hil.run.checkpoint import latest, load

    return dict(load(latest(folder / "checkpoints")).tensors)


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [1, 7, 23, 30])
def test_resume_continues_to_the_same_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Stopped by a signal after any step, inside an epoch or at its end, and resumed: bit for bit the uninterrupted run."""
    from hil.training import session
    from hil.training.loop import TrainingStep, train

    text = TWIN.replace('v_pi = "3.5 V"', 'v_pi = "3.5 V"\ndrift_rad_per_rts = 0.1')
    path = experiment(tmp_path, text)
    assert hil(capsys, "train", path, "--run", tmp_path / "whole").code == 0

    def interrupted(training: object) -> object:
        for point in train(training):  # type: ignore[arg-type]
            if isinstance(point, TrainingStep) and point.step == after:
                os.kill(os.getpid(), signal.SIGINT)
            yield point

    monkeypatch.setattr(session, "train", interrupted)
    said = hil(capsys, "train", path, "--run", tmp_path / "parts")
    assert said.code == 130
    assert f"after step {after}," in said.err
    assert "hil resume" in said.err
    assert summary(tmp_path / "parts")["status"] == "interrupted"
    monkeypatch.undo()
    assert hil(capsys, "resume", tmp_path / "parts").code == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    kept = ("test_accuracy", "test_loss", "validation_accuracy", "best_epoch", "device_passes", "steps")
    assert [summary(tmp_path / "whole")[k] for k in kept] == [summary(tmp_path / "parts")[k] for k in kept]
    lines = [(tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8").count("\n") for name in ("whole", "parts")]
    assert lines == [4, 4]


def test_a_nan_weight_stops_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hil.training import session
    from hil.training.loop import TrainingStep, train
    from hil.training.state import Training

    def poisoned(training: Training) -> object:
        for point in train(training):
            yield point
            if isinstance(point, TrainingStep) and point.step == 5:
                with torch.no_grad():
                    next(training.net.parameters()).view(-1)[0] = float("nan")

    monkeypatch.setattr(session, "train", poisoned)
    path = experiment(tmp_path, TWIN + "checkpoint_every = 4\n")
    said = hil(capsys, "train", path, "--run", tmp_path / "r")
    assert said.code == 3
    for part in (
        "modulator drive",
        "NaN",
        "nothing was sent",
        "hil resume",
        "after step 5",
        "newest checkpoint is step-00000004",
    ):
        assert part in said.err
    assert summary(tmp_path / "r")["status"] == "fault"
    monkeypatch.undo()
    assert hil(capsys, "resume", tmp_path / "r").code == 0  # from the last good weights


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hil(capsys, "train", experiment(tmp_path), "--run", tmp_path / "r").code == 0
    (tmp_path / "r" / "summary.json").unlink()  # as after a kill
    newest = max((tmp_path / "r" / "checkpoints").glob("step-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-100])
    said = hil(capsys, "resume", tmp_path / "r")
    assert said.code == 2
    assert "damaged checkpoint" in said.err
    assert "--from" in said.err
    oldest = min((tmp_path / "r" / "checkpoints").glob("step-*.json"))
    assert hil(capsys, "resume", tmp_path / "r", "--from", oldest).code == 0


# ---- through instruments ----------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_refused_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = BENCH.partition("\n[virtual]")[0].replace(
        'maker = "Keysight"', f'resource = "TCPIP::127.0.0.1::{free_port()}::SOCKET"'
    )
    bench = bench.replace("[instruments.scope]", '[instruments.scope]\nresource = "TCPIP::127.0.0.1::1::SOCKET"')
    said = hil(capsys, "train", on_bench(tmp_path, bench), "--run", tmp_path / "r")
    assert said.code == 3
    for part in ("127.0.0.1", "Next:"):
        assert part in said.err


def test_a_wrong_instrument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = hil(
        capsys, "train", on_bench(tmp_path, BENCH.replace('"33622A"\nchannel', '"33500B"\nchannel')), "--run", tmp_path / "r"
    )
    assert said.code == 3
    for part in ("wrong instrument", "33622A", "33500B", "Outputs: unchanged", "Next:"):
        assert part in said.err


def test_an_amplitude_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = hil(capsys, "train", on_bench(tmp_path, BENCH.replace('high = "4 V"', 'high = "7 V"')), "--run", tmp_path / "r")
    assert said.code == 2
    for part in ("7 V", "-5 to 5 V", "nothing was sent", "Next:"):
        assert part in said.err


def test_a_missing_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = hil(capsys, "train", on_bench(tmp_path, BENCH.partition("\n[virtual]")[0]), "--run", tmp_path / "r")
    assert said.code == 2
    assert "resource" in said.err


def started(tmp_path: Path, text: str) -> Command:
    """`hil train` through the virtual bench, after its first committed steps."""
    command = Command("train", on_bench(tmp_path, BENCH, text), "--run", tmp_path / "r")
    checkpoints = tmp_path / "r" / "checkpoints"
    assert until(lambda: any(checkpoints.glob("step-*.json")) or command.poll() is not None)
    assert command.poll() is None, command.said()
    return command


LONG = toml(128, "64, 20, 10", train="epochs = 500\nbatch = 64\ncheckpoint_every = 5")


def children(pid: int, module: str = "sim_devices.bench.served") -> list[int]:
    """Its children that run `module`."""
    found = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    return [p for p in found if module in Path(f"/proc/{p}/cmdline").read_text(encoding="utf-8").split("\0")]


@pytest.mark.cold
def test_a_killed_bench_and_a_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = started(tmp_path, LONG)
    (bench,) = children(command.pid)
    os.kill(bench, signal.SIGKILL)
    # the generator cannot be asked any more: nobody may claim that its output is off
    assert command.ended() == 4, command.said()
    for part in ("fault ended the run", "unknown", "the other end closed", "switch the outputs off", "hil resume"):
        assert part in command.said()
    assert summary(tmp_path / "r")["status"] == "fault"
    assert summary(tmp_path / "r")["outputs"].startswith("unknown")
    config = tmp_path / "r" / "config.toml"
    config.write_text(config.read_text(encoding="utf-8").replace("epochs = 500", "epochs = 1"), encoding="utf-8")
    monkeypatch.setattr(Warm, "cold", False)
    said = hil(capsys, "resume", tmp_path / "r")
    assert said.code == 0, said.err


@pytest.mark.cold
def test_a_killed_trainer_leaves_the_virtual_bench_safe(tmp_path: Path) -> None:
    """The guardian switches it off while the bench lingers; a resume goes on."""
    command = started(tmp_path, LONG)
    assert len(children(command.pid, "hil.guardian")) == 1
    command.kill()
    assert until(lambda: "safe, read back" in command.said()), command.said()  # the guardian says on stderr what it did
    log = tmp_path / "r" / "bench.log"
    assert until(lambda: "end" in log.read_text(encoding="utf-8"))
    said = [json.loads(line) for line in (tmp_path / "r" / "guardian.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["event"] for line in said] == ["watching", "trainer gone", "attempt", "made safe"]
    assert not json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["outputs"]["awg"]["1"]["on"]


@pytest.mark.cold
def test_ctrl_c_at_the_bench(tmp_path: Path) -> None:
    command = started(tmp_path, LONG)
    (bench,) = children(command.pid)
    command.send(signal.SIGINT)
    assert command.ended() == 130, command.said()
    for part in ("SIGINT", "is committed", "off, read back", "hil resume"):
        assert part in command.said()
    assert not Path(f"/proc/{bench}").exists()
