"""Each driver says what its transcript says, to its simulated box and to the transcript itself, also one of a real box."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from golden import CASES, GOLDEN, REAL, play, record
from rich.console import Console

from drivers.links.scripted import read_transcript
from hil.commands.transcript import transcribe
from hil.errors import ConfigError, ContractError, DataError

BENCHES = Path(__file__).resolve().parents[2] / "benches"
FILES = sorted([*GOLDEN.glob("*.jsonl"), *REAL.glob("*.jsonl")])


def said(path: Path) -> list[dict[str, Any]]:
    """All lines but the first, without their times."""
    return [{key: value for key, value in line.table.items() if key != "t"} for line in read_transcript(path)]


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_driver_talks_as_its_transcript(path: Path) -> None:
    play(path)


@pytest.mark.parametrize("name", CASES)
def test_a_driver_and_its_box_talk_as_they_did(name: str, tmp_path: Path) -> None:
    path, found = record(name, tmp_path)
    assert said(path) == said(GOLDEN / f"{name}.jsonl")
    assert play(path) == found


def test_another_word_is_found(tmp_path: Path) -> None:
    text = (GOLDEN / "tektronix_mso.jsonl").read_text(encoding="utf-8")
    (tmp_path / "x.jsonl").write_text(text.replace(":CH1:SCA 0.08", ":CH1:SCA 0.09", 1), encoding="utf-8")
    with pytest.raises(ContractError, match="does not say what was recorded"):
        play(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_text("[]\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a transcript"):
        play(tmp_path / "x.jsonl")


def test_the_command_writes_frames_too(tmp_path: Path) -> None:
    files = transcribe(BENCHES / "dac_board.toml", tmp_path / "said", Console(file=io.StringIO()))
    assert len(play(*files)[0]) == 1


def test_the_command_writes_transcripts_that_are_tests(tmp_path: Path) -> None:
    out = io.StringIO()
    files = transcribe(BENCHES / "red_pitaya.toml", tmp_path / "said", Console(file=out, width=200))
    assert [file.name for file in files] == ["pitaya.jsonl"]
    assert "outputs off, read back" in out.getvalue()
    read = play(files[0])
    assert [part[0] for part in read] == [64, 128]
    facts = json.loads(files[0].read_text(encoding="utf-8").splitlines()[0])
    assert facts["driver"] == "drivers.red_pitaya:RedPitaya"
    with pytest.raises(ConfigError, match="no such new folder"):
        transcribe(BENCHES / "red_pitaya.toml", tmp_path / "said", Console(file=out))
    with pytest.raises(ConfigError, match="no conversation is known"):
        transcribe(BENCHES / "spiking_board.toml", tmp_path / "board", Console(file=out))
