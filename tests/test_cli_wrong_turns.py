"""What a tired physicist does wrong at the command line: each ends with its exit code and a message, never with a traceback."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from pages import ROOT
from small import toml

from hil.cli import run
from hil.errors import Disconnected, RunError

TWIN = toml(train="epochs = 3\nbatch = 32")


def hil(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = run([str(a) for a in arguments])
    return code, capsys.readouterr().err


def written(tmp_path: Path, text: str = TWIN) -> Path:
    path = tmp_path / "e.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *more: str, text: str = TWIN) -> str:
    """What is said when this training is refused before anything was made."""
    code, err = hil(capsys, "train", written(tmp_path, text), "--run", tmp_path / "r", *more)
    assert code == 2, err
    assert "Outputs: " in err, err
    assert "Next: " in err, err
    assert "Traceback" not in err
    assert not (tmp_path / "r").exists()
    return err


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("seed=true", ["seed"]),
        ('train.epochs="3"', ["[train]", "epochs", "valid integer"]),
        ("train.batch=true", ["[train]", "batch"]),
        ("train.threads=1000000000000", ["[train]", "threads"]),
        ("optimizer.lr=inf", ["[optimizer]", "lr", "finite"]),
        ("encode.gain=nan", ["[encode]", "gain", "finite"]),
        ("encode.gain=true", ["[encode]", "gain"]),
        ("encode.gain=[1]", ["e.toml", "gain of 1 numbers", "any width"]),
        ("encode.gain=[[1]]", ["[encode", "gain"]),
        ('encode.gain="inf V"', ["e.toml", "gain", "finite"]),
        ("encode.offset=nan", ["[encode]", "offset"]),
        ("encode.period=-7", ["e.toml", "period -7"]),
        ("device.noise=loud", ["[device] noise", '"loud"', "float"]),
        ("device.phase_rad=nan", ["[device] phase_rad", "never NaN"]),
        ("device.v_pi=-3", ["e.toml", "above 0"]),
        ("network.widths=[64, true, 10]", ["e.toml", "[network]", "positive whole numbers"]),
        ("network.widths=[64, 20000000000, 10]", ["[network]", "memory"]),
        ("network.bias=perhaps", ["[network] bias", "bool"]),
        ("augment.shift=100", ["e.toml", "[augment] shift", "100 pixels"]),
        ("data.train_examples=100000", ["e.toml", "1 to 1437"]),
        ("learner.use=:", ["[learner]", "cannot import"]),
        ("learner.use=..:x", ["[learner]", "cannot import"]),
        ("learner.use=json:JSONDecoder", ["[learner]", "not a Learner", "Settings"]),
        ("optimizer.use=LBFGS", ["[optimizer] LBFGS", "closure"]),
        ("optimizer.use=SparseAdam", ["[optimizer] SparseAdam", "dense"]),
        ("optimizer.use=builtins:dict", ["[optimizer]"]),
        ("optimizer.betas=3", ["[optimizer]", "betas = 3"]),
        ("train=3", ["train = 3", "a section"]),
        ("seed.x=3", ["seed is a value", "seed=value"]),
        ("epochs", ['--set "epochs"', "section.key=value"]),
    ],
)
def test_wrong_values(tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, parts: list[str]) -> None:
    err = refused(capsys, tmp_path, "--set", override)
    for part in parts:
        assert part in err, err


@pytest.mark.parametrize(
    ("module", "parts"),
    [
        ("1 / 0", ["cannot import", "ZeroDivisionError"]),
        ("def (", ["cannot import", "SyntaxError"]),
        ("class Mine:\n    pass", ["no Settings"]),
    ],
)
@pytest.mark.parametrize("section", ["device", "learner"])
def test_foreign_modules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str, parts: list[str],
    section: str,
) -> None:  # fmt: skip
    name = f"wrong_turn_{section}_{abs(hash(module))}"
    (tmp_path / f"{name}.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    text = TWIN.replace('v_pi = "3.5 V"\n', "")
    err = refused(capsys, tmp_path, "--set", f"{section}.use={name}:Mine", text=text)
    for part in parts if section == "learner" or "no Settings" not in parts else ["neither a Twin nor a Device"]:
        assert part in err, err


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("learner.use=pkg.mod.Class", ["no colon", 'Next: write "pkg.mod:Class".']),
        ("learner.use=wrong_turn_rule:Rule", ["no module wrong_turn_rule", 'did you mean "wrong_turn_rules:Rule"?\n']),
        ("learner.use=frobnicator_of_nobody:Rule", ["no module frobnicator", "write frobnicator_of_nobody.py", "TMP"]),
        ("learner.use=wrong_turn_rules:Rul", ["no Rul in", "allowed: Rule", 'did you mean "wrong_turn_rules:Rule"?']),
        ("learner.use=wrong_turn_needs:Rule", ["imports frobnicator_of_nobody", "install frobnicator_of_nobody"]),
        ('learner.feedback={g="cos"}', ["e.toml: [learner] feedback: g is", 'write g = { family = "sine", phase = 1.5708 }']),
        ('learner.feedback={g={family="cos"}}', ['write g = { family = "sine", phase = 1.5708 }']),
        ('learner.feedback={g={family="gausian"}}', ["did you mean gaussian?"]),
        ("data.use=digts", ['did you mean "digits"?', "Outputs: untouched; nothing was opened"]),
    ],
)
def test_what_to_write_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, parts: list[str]) -> None:
    (tmp_path / "wrong_turn_rules.py").write_text("class Rule:\n    pass\n", encoding="utf-8")
    (tmp_path / "wrong_turn_needs.py").write_text("import frobnicator_of_nobody\n", encoding="utf-8")
    err = refused(capsys, tmp_path, "--set", override)
    for part in parts:
        assert part.replace("TMP", str(tmp_path)) in err, err
    assert "did you mean constant" not in err
    assert "whatever was opened" not in err


@pytest.mark.parametrize(
    ("command", "file", "parts"),
    [
        (
            "train",
            "benches/mzm_awg_scope.toml",
            ["this is a bench file, not an experiment file", "hil doctor", "[device] bench"],
        ),
        ("train", "experiments/compare_digits.toml", ["this is a comparison file, not an experiment file", "hil compare"]),
        ("doctor", "experiments/compare_digits.toml", ["this is a comparison file, not a bench file", "hil compare"]),
        ("search", "experiments/demo.toml", ["this is an experiment file, not a search file", "hil train"]),
        ("compare", "experiments/search_tabulated.toml", ["this is a search file, not a comparison file", "hil search"]),
    ],
)
def test_a_file_of_another_kind(capsys: pytest.CaptureFixture[str], command: str, file: str, parts: list[str]) -> None:
    code, err = hil(capsys, command, ROOT / file)
    assert code == 2
    for part in [*parts, "Outputs: untouched"]:
        assert part in err, err
    assert "unknown key" not in err


def test_wrong_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = hil(capsys, "train", tmp_path)
    assert code == 2
    assert "got a folder" in err
    assert "mend that line" not in err
    path = written(tmp_path)
    for arguments in (
        ("train", "a\0b"),
        ("train", path, "--run", tmp_path / ("x" * 300)),
        ("train", path, "--run", path),
        ("train", path, "--run", path / "below"),
        ("resume", path),
        ("describe", "os:path"),
        ("describe", "hil.config.resolve:UNTOUCHED"),
    ):
        code, err = hil(capsys, *arguments)
        assert code == 2, arguments
        assert "Outputs: untouched" in err, arguments
        assert "Next: " in err, arguments
        assert "hil resume" not in err, arguments
    assert hil(capsys, "describe", "builtins:int")[0] == 0


def test_a_missing_bench_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TWIN.replace('use = "mach_zehnder"\nv_pi = "3.5 V"', 'bench = "nowhere.toml"')
    assert "nowhere.toml" in refused(capsys, tmp_path, text=text)


def test_a_dead_node_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = hil(capsys, "train", written(tmp_path), "--run", tmp_path / "r", "--set", "device.v_pi=1e30")
    assert code == 3
    assert "does not answer" in err
    assert not (tmp_path / "r").exists()


def test_a_name_stays_below_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert hil(capsys, "train", written(tmp_path), "--set", "name=../../x", "--set", "train.epochs=1")[0] == 0
    assert [path.name[:2] for path in (tmp_path / "here" / "runs").iterdir()] == ["x-"]


# ---- resume -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after step 5 of 9, with checkpoints of steps 3, 4 and 5."""
    interrupt(monkeypatch, 5)
    code, err = hil(capsys, "train", written(tmp_path, TWIN + "checkpoint_every = 1\n"), "--run", tmp_path / "r")
    assert code == 130, err
    monkeypatch.undo()
    return tmp_path / "r"


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    from hil.training import session
    from hil.training.loop import TrainingStep, train

    def interrupted(training: object) -> object:
        for point in train(training):  # type: ignore[arg-type]
            if isinstance(point, TrainingStep) and point.step == after:
                os.kill(os.getpid(), signal.SIGINT)
            yield point

    monkeypatch.setattr(session, "train", interrupted)


@pytest.mark.parametrize(
    ("old", "new"),
    [("8,", "9,"), ('use = "Adam"', 'use = "SGD"'), ('use = "Adam"', 'use = "Adagrad"')],
)
def test_a_config_of_something_else(stopped: Path, capsys: pytest.CaptureFixture[str], old: str, new: str) -> None:
    config = stopped / "config.toml"
    assert old in config.read_text(encoding="utf-8")
    config.write_text(config.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    code, err = hil(capsys, "resume", stopped)
    assert code == 2, err
    for part in ("config.toml", "was changed", "Outputs: untouched", "Next: undo the change", "--changed"):
        assert part in err
    code, err = hil(capsys, "resume", stopped, "--changed")
    assert code == 2, err
    for part in ("does not fit", "Outputs: ", "Next: undo the change"):
        assert part in err
    assert len(list((stopped / "checkpoints").glob("step-*.json"))) == 3


def test_a_lower_rate_takes_effect(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = stopped / "config.toml"
    assert "lr = 0.001" in config.read_text(encoding="utf-8")
    config.write_text(config.read_text(encoding="utf-8").replace("lr = 0.001", "lr = 1e-30"), encoding="utf-8")
    from hil.run.checkpoint import latest, load

    before = load(latest(stopped / "checkpoints")).tensors["net.layers.0.synapse.weight"]
    code, err = hil(capsys, "resume", stopped)
    assert code == 2
    assert "optimizer.lr 0.001 -> 1e-30" in err
    assert hil(capsys, "resume", stopped, "--changed")[0] == 0
    assert torch.equal(before, load(latest(stopped / "checkpoints")).tensors["net.layers.0.synapse.weight"])


def test_foreign_and_missing_checkpoints(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = max((stopped / "checkpoints").glob("step-*.json"))
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"step-00000009{suffix}").write_bytes(point.with_suffix(suffix).read_bytes())
    for wrong in (tmp_path / "step-00000009.json", stopped / "summary.json", tmp_path, stopped / "checkpoints" / "step-9.json"):
        code, err = hil(capsys, "resume", stopped, "--from", wrong)
        assert code == 2, wrong
        assert "Outputs: untouched" in err, wrong
        assert "Next: " in err, wrong
    for path in (stopped / "checkpoints").iterdir():
        path.unlink()
    code, err = hil(capsys, "resume", stopped)
    assert code == 2
    assert "no checkpoint" in err
    assert "Outputs: untouched" in err


def test_going_back_makes_the_later_steps_again(
    stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After --from an earlier step the newest checkpoint is that branch's own, so that the next resume goes on there."""
    interrupt(monkeypatch, 4)
    oldest = min((stopped / "checkpoints").glob("step-*.json"))
    code, err = hil(capsys, "resume", stopped, "--from", oldest)
    assert code == 130, err
    assert [p.stem[-1] for p in sorted((stopped / "checkpoints").glob("step-*.json"))] == ["3", "4"]


def test_faults_while_the_test_split_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is over: the run is resumable, and the resumed one has the numbers of a run without the fault."""
    from hil.training import session

    def lost(*_: object) -> object:
        raise Disconnected("the other end closed", where="scope", outputs="unknown", todo="look at the cable")

    assert hil(capsys, "train", written(tmp_path), "--run", tmp_path / "whole")[0] == 0
    monkeypatch.setattr(session, "evaluate", lost)
    code, err = hil(capsys, "train", written(tmp_path), "--run", tmp_path / "r")
    assert code == 3, err
    assert "hil resume" in err
    assert json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))["status"] == "fault"
    monkeypatch.undo()
    assert hil(capsys, "resume", tmp_path / "r")[0] == 0
    found = [json.loads((tmp_path / name / "summary.json").read_text(encoding="utf-8")) for name in ("whole", "r")]
    assert found[0]["test_loss"] == found[1]["test_loss"]
    assert found[0]["device_passes"] == found[1]["device_passes"]


def test_a_full_disk_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from hil.run import checkpoint

    def full(folder: Path, *_: object) -> Path:
        raise RunError("cannot write: No space left on device", where=str(folder), todo="free space")

    monkeypatch.setattr(checkpoint, "save", full)
    code, err = hil(capsys, "train", written(tmp_path), "--run", tmp_path / "r")
    assert code == 3, err
    for part in ("No space left", "could not be written", "hil resume starts again from step 0", "then: hil resume"):
        assert part in err
    monkeypatch.undo()
    assert hil(capsys, "resume", tmp_path / "r")[0] == 0


def test_help_says_what_the_options_mean(capsys: pytest.CaptureFixture[str]) -> None:
    for command, part in (
        ("train", "section.key=value"),
        ("resume", "Another checkpoint"),
        ("compare", "folder of the results"),
    ):
        assert run([command, "--help"]) == 0
        said = capsys.readouterr().out
        assert part in said
        assert "--experiment" not in said


def test_ctrl_c_while_opening(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from hil.commands import train as training

    def hanging(*_: object, record: bool, fresh: bool) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "built", hanging)
    code, err = hil(capsys, "train", written(tmp_path), "--run", tmp_path / "r")
    assert code == 130
    for part in ("stopped at once", "outputs safe", "Next: "):
        assert part in err
    assert not (tmp_path / "r").exists()


TEMPORAL = """
import torch
import hil

class Fading(torch.nn.Module):
    spec = hil.Spec(hil.Port("drive", -1, 1, "V"), hil.Port("reading", -1, 1, "V"), temporal=True, provenance="twin")

    def rest(self, batch, rng):
        return ()

    def respond(self, state, params, x, rng):
        return x, state

    def ideal(self, x):
        return x
"""


def test_a_node_with_a_state_in_time_is_refused_to_a_learner_without_a_time_axis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fading.py").write_text(TEMPORAL, encoding="utf-8")
    text = TWIN.replace('v_pi = "3.5 V"\n', "").replace("mach_zehnder", "fading:Fading")
    code, err = hil(capsys, "train", written(tmp_path, text), "--run", tmp_path / "r")
    assert code == 2, err
    assert "this learner has no time axis" in err
    assert "adfa" in err
