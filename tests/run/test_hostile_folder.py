"""A run folder is data: nothing in it blocks, is followed, is removed, is shown raw, or is restored unless it fits."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from small import toml

from hil.cli import run
from hil.commands import trust
from hil.commands.terminal import Terminal
from hil.errors import RunError
from hil.files import write_atomic
from hil.plain import HIDDEN, plain
from hil.run import checkpoint
from hil.run.folder import RunFolder

TINY = 'name = "tiny"\n' + toml(16, "64, 3, 10", 'use = "mach_zehnder"', train="epochs = 1\nbatch = 8\nthreads = 1")
NASTY = "a\x1b]52;c;ZXZpbA==\x07b\x9b2Jc\u202ed\u2066e[bold]f[/] [link=http://x]g[/link] <script>alert(1)</script> :boom:"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a tape."""
    home = tmp_path_factory.mktemp("made")
    (home / "e.toml").write_text(TINY, encoding="utf-8")
    assert run(["train", str(home / "e.toml"), "--run", str(home / "r"), "--record"]) == 0
    return home / "r"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it that can go on: one more epoch is asked for."""
    target = tmp_path / "r"
    shutil.copytree(made, target)
    (target / "config.toml").write_text(
        (target / "config.toml").read_text(encoding="utf-8").replace("epochs = 1", "epochs = 2"), encoding="utf-8"
    )
    table = json.loads((target / "summary.json").read_text(encoding="utf-8"))
    (target / "summary.json").write_text(json.dumps({**table, "status": "interrupted"}), encoding="utf-8")
    return target


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = run([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out + err


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 << 30)


KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "10 GB": sparse,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "deep": lambda path: path.write_bytes(b"[" * 200_000),
}
FILES = ("config.toml", "summary.json", "metrics.jsonl", "journal.jsonl", "diagnostics.json", "run.lock", "report.html")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_nothing_blocks_who_looks(folder: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str) -> None:
    (folder / name).unlink()
    KINDS[kind](folder / name)
    for command in (("status", folder), ("status", folder, "--log"), ("list", "runs")):
        assert said(capsys, *command)[0] in (0, 2)
    if name != "report.html":
        code, _ = said(capsys, "resume", folder)
        goes_on = (kind == "deep" and name in ("metrics.jsonl", "journal.jsonl")) or (
            name == "run.lock" and kind in ("deep", "10 GB")
        )
        assert code == 2 or (goes_on and code == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".json", ".safetensors"])
def test_nothing_blocks_who_goes_on(folder: Path, capsys: pytest.CaptureFixture[str], ending: str, kind: str) -> None:
    newest = checkpoint.latest(folder / "checkpoints").with_suffix(ending)
    newest.unlink()
    KINDS[kind](newest)
    code, text = said(capsys, "resume", folder)
    assert code == 2
    assert newest.stem in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tape.json", "node.json", "node/input/0", "node/index/0"])
def test_nothing_blocks_a_replay(folder: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str) -> None:
    path = folder / "tape" / name
    path.unlink()
    KINDS[kind](path)
    code, text = said(capsys, "replay", folder)
    assert code == 2, text


WRITTEN = ("metrics.jsonl", "journal.jsonl", "run.lock", "checkpoints", "tape", "bench.log")


@pytest.mark.parametrize("name", [*WRITTEN, "summary.json", "report.html", "diagnostics.json", ".summary.json.{pid}.part"])
def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("{}", encoding="utf-8")
    path = folder / name.format(pid=os.getpid())
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(outside if name in ("checkpoints", "tape") else outside / "kept")
    before = (outside / "kept").stat()
    said(capsys, "resume", folder)
    assert (outside / "kept").read_text(encoding="utf-8") == "{}"
    assert (outside / "kept").stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(outside) == ["kept"]


def test_a_whole_file_replaces_a_link_and_leaves_what_it_led_to(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("kept", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "outside").read_text(encoding="utf-8") == "kept"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text(encoding="utf-8") == "new"


THERE: dict[str, Callable[[Path], object]] = {
    "bench.toml": lambda f: (f / "bench.toml").write_text("mine", encoding="utf-8"),
    "an empty folder": lambda f: (f / "data").mkdir(),
    "a temporary": lambda f: (f / ".notes.part").write_text("mine", encoding="utf-8"),
    "a temporary as ours": lambda f: (f / ".summary.json.1.part").write_text("mine", encoding="utf-8"),
    "a dangling link": lambda f: (f / "checkpoints").symlink_to("/nowhere"),
    "run.lock and more": lambda f: [(f / n).write_text("mine", encoding="utf-8") for n in ("run.lock", "thesis.tex")],
}


def names(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() and not p.is_symlink() else None for p in folder.rglob("*")
    }


@pytest.mark.parametrize("kind", THERE)
@pytest.mark.parametrize("text", [TINY, TINY.replace('use = "adfa"', 'use = "nobody.has:This"')], ids=["good", "refused"])
def test_what_was_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, text: str) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    THERE[kind](target)
    before = names(target)
    (tmp_path / "e.toml").write_text(text, encoding="utf-8")
    assert said(capsys, "train", tmp_path / "e.toml", "--run", target)[0] == 2
    assert names(target) == before


@pytest.mark.parametrize("kind", ["empty", "checkpoints alone", "new"])
def test_a_refused_run_takes_back_only_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    target = tmp_path / "r"
    if kind != "new":
        target.mkdir()
    if kind == "checkpoints alone":
        (target / "checkpoints").mkdir()
    (tmp_path / "e.toml").write_text(TINY.replace('use = "adfa"', 'use = "nobody.has:This"'), encoding="utf-8")
    assert said(capsys, "train", tmp_path / "e.toml", "--run", target)[0] == 2
    assert target.exists() == (kind != "new")
    assert not target.exists() or os.listdir(target) == ["checkpoints"] * (kind == "checkpoints alone")


def test_a_link_is_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e.toml").write_text(TINY, encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    for name, to in (("full", tmp_path / "elsewhere"), ("nowhere", tmp_path / "none"), ("self", tmp_path / "self")):
        (tmp_path / name).symlink_to(to)
        assert said(capsys, "train", tmp_path / "e.toml", "--run", tmp_path / name)[0] == 2
    assert not os.listdir(tmp_path / "elsewhere")
    assert not (tmp_path / "none").exists()


def test_only_our_temporaries_are_swept(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "r")
    kept = (".notes.part", ".x.json.part", "summary.json.1.part", ".a.docx.12.part")
    for name in (*kept, ".summary.json.12.part", ".step-00000001.safetensors.7.part"):
        (folder.path / name).write_text("", encoding="utf-8")
    (folder.path / ".link.json.1.part").symlink_to("/nowhere")
    folder.sweep()
    assert sorted(p.name for p in folder.path.iterdir()) == sorted([*kept, "checkpoints", ".link.json.1.part"])


# Checkpoints


def forged(folder: Path, facts: Callable[[dict[str, Any]], object], tensors: Callable[[dict[str, Any]], object]) -> None:
    """The newest checkpoint, changed by somebody who knows the sums."""
    path = checkpoint.latest(folder / "checkpoints")
    held = dict(safetensors.torch.load(path.with_suffix(".safetensors").read_bytes()))
    tensors(held)
    payload = safetensors.torch.save(held)
    table = json.loads(path.read_text(encoding="utf-8"))
    facts(table)
    table = {**table, "sha256": hashlib.sha256(payload).hexdigest()}
    table.pop("facts_sha256")
    told = {**table, "facts_sha256": hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()}
    for file in (path, path.with_suffix(".safetensors")):
        file.unlink()
    path.write_text(json.dumps(told), encoding="utf-8")
    path.with_suffix(".safetensors").write_bytes(payload)


def without_a_slot(slot: str) -> Callable[[dict[str, Any]], object]:
    return lambda held: held.pop(next(name for name in held if name.endswith(slot)))


TENSORS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no exp_avg": without_a_slot("exp_avg"),
    "no step": without_a_slot(".step"),
    "no state at all": lambda held: [held.pop(name) for name in list(held) if name.startswith("optimizer.")],
    "another slot": lambda held: held.update({"optimizer.0.surplus": torch.zeros(3)}),
    "another parameter": lambda held: held.update({"optimizer.99.exp_avg": torch.zeros(3)}),
    "another shape": lambda held: held.update({"optimizer.0.exp_avg": torch.zeros(1, 2)}),
    "another dtype": lambda held: held.update({"optimizer.0.exp_avg": held["optimizer.0.exp_avg"].double()}),
    "a weight of another dtype": lambda held: held.update({n: t.half() for n, t in held.items() if n.startswith("net.")}),
    "a weight too many": lambda held: held.update({"net.more": torch.zeros(3)}),
    "best of another shape": lambda held: held.update({n: t[:1] for n, t in held.items() if n.startswith("best.")}),
    "an unknown kind": lambda held: held.update({"evil.weight": torch.zeros(3)}),
}
FACTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "epoch -1": lambda t: t.update(epoch=-1),
    "epoch 1.0": lambda t: t.update(epoch=1.0),
    "epoch beyond": lambda t: t.update(epoch=7),
    "batch beyond": lambda t: t.update(batch=2),
    "batch true": lambda t: t.update(batch=True),
    "wall NaN": lambda t: t.update(wall_s=math.nan),
    "sums": lambda t: t.update(sums={"loss": math.inf}),
    "seconds": lambda t: t.update(seconds={}),
    "best": lambda t: t.update(best={"accuracy": math.nan, "epoch": 1}),
    "best beyond": lambda t: t["best"].update(epoch=9),
    "devices": lambda t: t.update(devices=[]),
    "passes": lambda t: t["devices"][0].update(passes=-5),
    "snapshot": lambda t: t["devices"][0].update(snapshot=None),
    "groups": lambda t: t["optimizer"].update(groups=[]),
    "parameters": lambda t: t["optimizer"]["groups"][0].update(params=[1, 0, 2, 3]),
    "optimizer": lambda t: t.update(optimizer=7),
}
UNCHANGED: Callable[[dict[str, Any]], object] = lambda table: None  # noqa: E731


@pytest.mark.parametrize("case", [*TENSORS, *FACTS])
def test_a_checkpoint_that_does_not_fit_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    forged(folder, FACTS.get(case, UNCHANGED), TENSORS.get(case, UNCHANGED))
    code, text = said(capsys, "resume", folder)
    assert code == 2, text
    assert "does not fit the experiment" in text


def test_an_untouched_one_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged(folder, UNCHANGED, UNCHANGED)
    (folder / "config.toml").write_text(
        (folder / "config.toml").read_text(encoding="utf-8").replace("record = true", "record = false"), encoding="utf-8"
    )
    code, text = said(capsys, "resume", folder, "--changed")
    assert code == 0, text


# Whose folder it is


@pytest.mark.parametrize("command", [("resume",), ("use",), ("replay",)])
@pytest.mark.parametrize("place", [".", "config.toml", "checkpoints"])
def test_a_folder_of_others_is_asked_about(
    folder: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], place: str
) -> None:
    (folder / place).chmod(0o777)
    before = (folder / "journal.jsonl").read_bytes()
    code, text = said(capsys, *command, folder)
    assert code == 2
    assert "--trust" in text
    assert "untouched; nothing was opened" in text
    assert (folder / "journal.jsonl").read_bytes() == before


def test_trusted_it_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.chmod(0o777)
    _, text = said(capsys, "replay", folder, "--trust")
    assert "replay of node, shot 5" in text  # as far as the second epoch, which was not recorded


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_on_a_terminal_it_is_a_question(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Keyboard()
    monkeypatch.setattr("sys.stdin", Keyboard(answer))
    monkeypatch.setattr("sys.stderr", screen)
    folder.chmod(0o777)
    if goes_on:
        trust.check(folder, False)
    else:
        with pytest.raises(RunError, match="not yours alone"):
            trust.check(folder, False)
    assert "[y/N]" in screen.getvalue()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_user_is_another(folder: Path) -> None:
    os.chown(folder / "config.toml", 12345, 12345)
    with pytest.raises(RunError, match="12345"):
        trust.check(folder, False, ask=lambda question: False)
    trust.check(folder, False, ask=lambda question: True)
    trust.check(folder, True, ask=lambda question: False)


# What is shown


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x1b]52;c;eA==\x07", "\x9b31m", "\u202eevil", "\u2066\u2069", "\x00\x7f", "\u2028x", "\ud800"]
)
def test_what_a_terminal_would_obey_is_shown(text: str) -> None:
    assert not HIDDEN.search(plain(text))
    assert "\\" in plain(text)
    assert plain("plain text ä €\n\t") == "plain text ä €\n\t"
    assert text not in str(RunError("a fault", where=f"file {text}", got=text, todo=text))
    screen = io.StringIO()
    Terminal(file=screen, width=300, force_terminal=True, color_system=None).print(f"a{text}b [bold]c[/bold] [/d] :boom:")
    assert not HIDDEN.search(screen.getvalue())
    assert "[bold]c[/bold] [/d] :boom:" in screen.getvalue()


def test_nothing_raw_reaches_terminal_or_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "journal.jsonl").open("a", encoding="utf-8") as file:
        for kind in ("fault", NASTY):
            file.write(json.dumps({"t": NASTY, "kind": kind, "message": NASTY, NASTY: NASTY}) + "\n")
    (folder / "run.lock").write_text(json.dumps({"pid": 1, "host": NASTY, "since": NASTY, "command": NASTY}), encoding="utf-8")
    table = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (folder / "summary.json").write_text(
        json.dumps({**table, "name": NASTY, "cause": NASTY, "node": {NASTY: NASTY}}), encoding="utf-8"
    )
    shown = ""
    for command in (("status", folder), ("status", folder, "--log"), ("report", folder)):
        code, text = said(capsys, *command)
        assert code == 0, text
        assert not HIDDEN.search(text)
        shown += text
    assert "[bold]f[/]" in shown
    assert "\\x1b]52;c" in shown
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not HIDDEN.search(page)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
