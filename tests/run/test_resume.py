"""A damaged run folder: every outcome is a right plan, or a refusal that names the file. Never a traceback, never silently."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hil.cli import run
from hil.config.bench import read_bench
from hil.config.experiment import read_experiment
from hil.errors import Refused, RunError
from hil.run import checkpoint, resume, status
from hil.run.folder import RunFolder
from hil.training import session

TWIN = """
seed = 1
[data]
train_examples = 96
[network]
widths = [64, 8, 10]
[device]
use = "mach_zehnder"
v_pi = "3.5 V"
[encode]
overflow = "fold"
period = "7 V"
[learner]
use = "adfa"
[train]
epochs = 2
batch = 16
checkpoint_every = 4
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as a SIGKILL leaves it after step 10 of 12, with checkpoints of steps 6 (twice) and 8; it has a bench file."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "e.toml").write_text(TWIN, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(session, "KEPT_CHECKPOINTS", 5)
        assert run(["train", str(folder / "e.toml"), "--run", str(folder / "r")]) == 0
    path = folder / "r"
    for name in ("summary.json", "report.html", "checkpoints/best.json", "checkpoints/best.safetensors"):
        (path / name).unlink()
    for point in checkpoint.listed(path / "checkpoints")[-2:]:  # those of step 12
        point.unlink()
        point.with_suffix(".safetensors").unlink()
    lines = (path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    last = next(n for n, line in enumerate(lines) if b'"kind":"commit","step":10,' in line)
    (path / "journal.jsonl").write_bytes(b"".join(lines[: last + 1]) + lines[last + 1][:40])
    metrics = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(metrics[:2]), encoding="utf-8")
    return path


@pytest.fixture
def path(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "r"))


def planned(path: Path, chosen: Path | None = None, changed: bool = False) -> resume.ResumePlan:
    return resume.plan(resume.inspect(path), chosen, changed)


def test_a_killed_run_goes_on_from_its_newest_checkpoint(path: Path) -> None:
    plan = planned(path)
    assert plan.start == path / "checkpoints" / "step-00000008.json"
    assert plan.finish == ()
    assert any("steps 9 to 10 came after it, and are made again" in text for text in plan.said)
    assert any("torn when the run was killed" in text for text in plan.said)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def alter(file: Path) -> None:
    payload = bytearray(file.read_bytes())
    payload[len(payload) // 2] ^= 1
    file.write_bytes(payload)


@pytest.mark.parametrize("damage", [cut, alter, Path.unlink])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_damaged_newest_checkpoint_is_named_and_an_earlier_one_offered(
    path: Path, damage: Callable[[Path], None], suffix: str
) -> None:
    damage((path / "checkpoints" / "step-00000008").with_suffix(suffix))
    with pytest.raises(RunError) as caught:
        planned(path)
    for part in ("step-00000008", "last good state is step 6", f"hil resume {path} --from checkpoints/step-00000006.json"):
        assert part in str(caught.value)
    chosen = planned(path, Path("checkpoints/step-00000006.json"))
    assert chosen.start == path / "checkpoints" / "step-00000006.json"
    assert run(["resume", str(path), "--from", "checkpoints/step-00000006.json"]) == 0
    with pytest.raises(RunError, match="finished"):
        planned(path)


def test_a_flipped_digit_in_the_facts_is_seen(path: Path) -> None:
    file = path / "checkpoints" / "step-00000008.json"
    assert '"batch": 2' in file.read_text(encoding="utf-8")
    file.write_text(file.read_text(encoding="utf-8").replace('"batch": 2', '"batch": 3', 1), encoding="utf-8")
    with pytest.raises(RunError, match="damaged checkpoint") as caught:
        planned(path)
    assert "checksum of the facts" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("config.toml", None, ["config.toml", "missing", "step-00000008.json", '"experiment"']),
        ("config.toml", "seed = ", ["config.toml", "not TOML"]),
        ("summary.json", '{"status": "do', ["summary.json", "remove it"]),
        ("summary.json", '{"status": "dona"}', ["summary.json", "dona"]),
        ("diagnostics.json", "[]", ["diagnostics.json", "a list, not an object"]),
    ],
)
def test_other_damage_is_named(path: Path, name: str, text: str | None, parts: list[str]) -> None:
    if text is None:
        (path / name).unlink()
    else:
        (path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RunError) as caught:
        planned(path)
    for part in ["damaged run folder", *parts]:
        assert part in str(caught.value)
    shown = "\n".join(status.lines(status.read(path)))
    assert "beware" in shown
    assert name in shown


def test_changed_settings_need_a_word_unless_they_change_no_number(path: Path) -> None:
    config = path / "config.toml"
    whole = config.read_text(encoding="utf-8")
    config.write_text(whole.replace("epochs = 2", "epochs = 3"), encoding="utf-8")
    assert any("train.epochs 2 -> 3" in text for text in planned(path).said)
    config.write_text(whole.replace("seed = 1", "seed = 2"), encoding="utf-8")
    with pytest.raises(RunError, match="was changed") as caught:
        planned(path)
    assert "seed 1 -> 2" in str(caught.value)
    assert any("seed 1 -> 2" in text for text in planned(path, changed=True).said)


def test_a_run_without_a_checkpoint_starts_again(path: Path) -> None:
    for file in (path / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(RunError, match="no checkpoint to resume from"):  # the journal knows that there were some
        planned(path)
    (path / "journal.jsonl").unlink()
    plan = planned(path)
    assert plan.start is None
    assert "starts again from step 0" in plan.said[-1]


def test_a_finished_run_is_completed(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["resume", str(path)]) == 0
    before = {name: (path / name).read_bytes() for name in ("summary.json", "metrics.jsonl")}
    drawn = json.loads((path / "diagnostics.json").read_text(encoding="utf-8"))
    (path / "report.html").write_text("<html>", encoding="utf-8")  # as no atomic write leaves it
    assert planned(path).finish == ("report.html",)
    assert run(["resume", str(path)]) == 0
    (path / "report.html").unlink()
    (path / "diagnostics.json").write_text(
        json.dumps({k: v for k, v in drawn.items() if k in ("transfer", "honesty", "confusion")}), encoding="utf-8"
    )
    assert planned(path).finish == ("diagnostics.json", "report.html")
    assert run(["resume", str(path)]) == 0
    again = json.loads((path / "diagnostics.json").read_text(encoding="utf-8"))
    assert {k: v for k, v in again.items() if k not in ("time", "classes")} == {
        k: v for k, v in drawn.items() if k not in ("time", "classes")
    }
    assert before["metrics.jsonl"] == (path / "metrics.jsonl").read_bytes()
    assert (
        json.loads(before["summary.json"])["test_loss"]
        == json.loads((path / "summary.json").read_text(encoding="utf-8"))["test_loss"]
    )
    assert run(["resume", str(path)]) == 2


def test_two_resumes_at_once(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(path).owned():
        assert status.read(path).state != "dead"
        assert run(["resume", str(path)]) == 2
    assert "another process is at work" in capsys.readouterr().err


# ---- any damage -------------------------------------------------------------------------------------------------------------


def damaged(draw: random.Random, path: Path) -> list[str]:
    """Do one to three things to files of the folder; returns which were touched."""
    touched = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        files = sorted(file for file in path.rglob("*") if file.is_file())
        if not files:
            break
        file = draw.choice(files)
        payload = bytearray(file.read_bytes())
        how = draw.randrange(5)
        if how == 0 or not payload:
            file.unlink()
        elif how == 1:
            file.write_bytes(payload[: draw.randrange(len(payload))])
        elif how == 2:
            begin = draw.randrange(len(payload))
            file.write_bytes(payload[:begin] + draw.randbytes(draw.randrange(1, 40)) + payload[begin + 10 :])
        else:
            for _ in range(draw.choice((1, 1, 5))):
                payload[draw.randrange(len(payload))] ^= 1 << draw.randrange(8)
            file.write_bytes(payload)
        touched.append(file.relative_to(path).as_posix())
    return touched


@pytest.mark.parametrize("seed", range(8))
def test_any_damage_is_refused_by_name_or_harmless(killed: Path, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    newest = "checkpoints/step-00000008"
    pair = {f"{newest}{suffix}": (killed / f"{newest}{suffix}").read_bytes() for suffix in (".json", ".safetensors")}
    settings = read_experiment(killed / "config.toml").model_dump(exclude={"name", "alarm", "train"})
    for trial in range(50):
        path = Path(shutil.copytree(killed, tmp_path / f"{trial}"))
        touched = damaged(draw, path)
        list(status.log(path)) if (path / "config.toml").exists() else None
        try:
            assert list(status.lines(status.read(path)))
            plan = planned(path)
            experiment = read_experiment(path / "config.toml")
        except Refused as error:
            said = str(error)
        else:
            said = ""
        if said:
            assert any(Path(name).stem in said for name in touched), (touched, said)
            continue
        same = {name: (path / name).read_bytes() if (path / name).exists() else b"" for name in pair}
        assert plan.start is not None, touched
        assert plan.start.name == "step-00000008.json" or "journal.jsonl" in touched, (touched, plan)
        if plan.start.name == "step-00000008.json":
            assert same[f"{newest}.safetensors"] == pair[f"{newest}.safetensors"], touched
            one, other = (checkpoint.load(folder / f"{newest}.json").facts for folder in (path, killed))
            assert {k: v for k, v in one.items() if "sha256" not in k} == {k: v for k, v in other.items() if "sha256" not in k}
        assert experiment.model_dump(exclude={"name", "alarm", "train"}) == settings, touched
        shutil.rmtree(path)


def test_the_bench_file_belongs_to_it(tmp_path: Path) -> None:
    """Its copy is needed, and must be the one that the checkpoint was made with."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.toml").write_text('[device]\nbench = "b.toml"\n', encoding="utf-8")
    with pytest.raises(RunError, match="damaged run folder") as caught:
        planned(tmp_path)
    assert "bench.toml" in str(caught.value)
    (tmp_path / "bench.toml").write_text(
        (Path(__file__).parents[2] / "benches" / "mzm_awg_scope.toml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    assert planned(tmp_path).start is None
    facts = {"step": 3, "experiment": {"device": {"bench": "b.toml"}}, "bench_sha256": resume.inspect(tmp_path).bench}
    checkpoint.save(tmp_path / "checkpoints", "step-00000003", checkpoint.Checkpoint({}, facts))
    assert planned(tmp_path).start is not None
    (tmp_path / "bench.toml").write_text(
        (tmp_path / "bench.toml").read_text(encoding="utf-8").replace('"4 V"', '"3 V"'), encoding="utf-8"
    )
    assert read_bench(tmp_path / "bench.toml")
    with pytest.raises(RunError, match="was changed") as caught:
        planned(tmp_path)
    assert "bench.toml" in str(caught.value)
