"""What is said on a wire is written down whole, and a driver that says something else than was written is found out."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from scripted_link import MessageLink, Transcript
from wire_sessions import TRANSCRIPTS, board_session, waveform_session

from drivers.links import transcript
from drivers.links.block import header
from drivers.links.scripted import ScriptedFrames, ScriptedLink, read_transcript
from drivers.links.transcript import Transcribed, WireLog, described
from drivers.scpi import Scpi
from hil.build.bench import open_bench
from hil.config.bench import read_bench
from hil.device import ArraySpec
from hil.errors import ContractError, DataError, DirtySession, HilError, LinkTimeout, RunError

IDENTITY = "Acme,S1,42,1.0"


def talk(scpi: Scpi, volts: float = 2.5) -> None:
    scpi.identify()
    scpi.send(f":VOLT {volts:g}", ":OUTP 1")
    scpi.link.write(b":DATA ", header(200), bytes(range(200)))
    scpi.send()
    assert bytes(scpi.ask_block(":CURV?", "<u1", 4)) == b"\x00\x01\x02\xff"
    with pytest.raises(LinkTimeout):
        scpi.ask(":NEVER?")
    with pytest.raises(DirtySession):
        scpi.ask(":VOLT?")
    scpi.link.clear()
    scpi.identify()


def box() -> MessageLink:
    return MessageLink(
        Transcript(
            ("*IDN?", IDENTITY), (":VOLT 2.5;:OUTP 1", None), ("*OPC?", "1"), (b":DATA #3200" + bytes(range(200)), None),
            ("*OPC?", "1"), (":CURV?", b"#14\x00\x01\x02\xff"), (":NEVER?", None), ("*IDN?", IDENTITY),
        )
    )  # fmt: skip


def recorded(path: Path, full_bytes: int = 4096) -> Path:
    ticks = iter(range(1000))
    with WireLog(path, "here", full_bytes=full_bytes, clock=lambda: float(next(ticks))) as log:
        link = Transcribed(box(), log)
        talk(Scpi(link))
        link.close()
    return path


def test_every_message_is_written_down(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in recorded(tmp_path / "w" / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0]["format"] == 1
    assert lines[0]["name"] == "here"
    said = [(line["dir"], line["kind"], line.get("text", line.get("hex", line.get("of")))) for line in lines[1:]]
    assert said == [
        (">", "write", "*IDN?"), ("<", "text", IDENTITY), (">", "write", ":VOLT 2.5;:OUTP 1"), (">", "write", "*OPC?"),
        ("<", "text", "1"), (">", "write", (b":DATA #3200" + bytes(range(200))).hex()), (">", "write", "*OPC?"),
        ("<", "text", "1"), (">", "write", ":CURV?"), ("<", "block", "000102ff"), (">", "write", ":NEVER?"),
        ("<", "error", "text"), (">", "clear", None), (">", "write", "*IDN?"), ("<", "text", IDENTITY), (">", "close", None),
    ]  # fmt: skip
    assert [line["t"] for line in lines[1:]] == sorted(line["t"] for line in lines[1:])
    error = next(line for line in lines if line.get("kind") == "error")
    assert (error["error"], error["what"]) == ("LinkTimeout", "no answer")


@pytest.mark.parametrize("full_bytes", [4096, 64])
def test_the_same_conversation_passes(tmp_path: Path, full_bytes: int) -> None:
    link = ScriptedLink.from_transcript(recorded(tmp_path / "x.jsonl", full_bytes))
    talk(Scpi(link))
    link.close()
    link.close()
    link.done()


def test_another_message_is_shown_against_the_recorded_one(tmp_path: Path) -> None:
    path = recorded(tmp_path / "x.jsonl")
    link = ScriptedLink.from_transcript(path)
    with pytest.raises(ContractError, match="does not say what was recorded") as caught:
        talk(Scpi(link), 2.6)
    said = str(caught.value)
    assert f"{path}, line 4" in said
    assert "':VOLT 2.6;:OUTP 1'; they part at byte 8" in said
    assert "allowed: write of 17 bytes: text ':VOLT 2.5;:OUTP 1'" in said
    with pytest.raises(ContractError, match="line 4"):  # also if somebody swallowed it
        link.done()


@pytest.mark.parametrize("full_bytes", [4096, 64])
def test_a_block_of_the_same_length_with_one_other_byte_is_found(tmp_path: Path, full_bytes: int) -> None:
    scpi = Scpi(ScriptedLink.from_transcript(recorded(tmp_path / "x.jsonl", full_bytes)))
    scpi.identify()
    scpi.send(":VOLT 2.5", ":OUTP 1")
    with pytest.raises(ContractError, match="line 7"):
        scpi.link.write(b":DATA ", header(200), bytes(range(199)) + b"\x00")


def test_a_read_in_the_place_of_a_write_and_a_conversation_that_ends_early(tmp_path: Path) -> None:
    link = ScriptedLink.from_transcript(recorded(tmp_path / "x.jsonl"))
    with pytest.raises(ContractError, match="a text read"):
        link.read_text()
    link = ScriptedLink.from_transcript(tmp_path / "x.jsonl")
    Scpi(link).identify()
    with pytest.raises(ContractError, match="lines are left"):
        link.done()
    link = ScriptedLink([], "nowhere")
    with pytest.raises(ContractError, match="after its last line"):
        link.write(b"*IDN?")


def test_a_reply_that_was_not_kept_whole_cannot_be_played(tmp_path: Path) -> None:
    scpi = Scpi(ScriptedLink.from_transcript(recorded(tmp_path / "x.jsonl", 3)))
    with pytest.raises(ContractError, match="larger full_bytes"):
        scpi.identify()


def test_the_file_stops_at_its_largest_size_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with WireLog(path, "here", limit_bytes=1000) as log:
        for _ in range(50):
            log.note(">", "write", b"*IDN?")
    last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    assert last["kind"] == "full"
    assert "nothing that follows is kept" in last["what"]
    assert path.stat().st_size < 1300
    with pytest.raises(DataError, match="largest size"):
        read_transcript(path)


def test_a_disk_that_is_full_stops_the_file_and_not_the_conversation(tmp_path: Path) -> None:
    log = WireLog(tmp_path / "x.jsonl", "here")

    class Full:
        closed = False

        def write(self, text: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            self.closed = True

    log._file.close()
    log._file = Full()  # type: ignore[assignment]
    talk(Scpi(Transcribed(box(), log)))
    with pytest.raises(RunError, match="No space left"):
        log.close()
    with pytest.raises(RunError, match="cannot be written"):
        WireLog(tmp_path, "a folder")


@pytest.mark.parametrize(("most", "said"), [(1 << 14, "does not answer"), (2, "does not keep up")])
def test_a_disk_that_hangs_holds_up_no_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, said: str
) -> None:
    """most: lines that may wait for it."""
    monkeypatch.setattr(transcript, "LINES", most)
    log, hangs = WireLog(tmp_path / "x.jsonl", "here"), threading.Event()
    assert log._disk.drain(10.0)

    class Hanging:
        closed = False

        def write(self, text: bytes) -> int:
            hangs.wait()
            return len(text)

        def flush(self) -> None:
            pass

        def close(self) -> None:
            self.closed = True

    log._file.close()
    log._file = Hanging()  # type: ignore[assignment]
    monkeypatch.setattr(transcript, "CLOSE_S", 0.05)
    for _ in range(3):
        talk(Scpi(Transcribed(box(), log)))
    with pytest.raises(RunError, match=said):
        log.close()
    hangs.set()


@pytest.mark.parametrize("text", ['{"kind": "write"', "[]", '{"t": 1}'])
def test_what_is_no_transcript_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="not a whole transcript"):
        read_transcript(tmp_path / "x.jsonl")


def test_pieces_are_one_message() -> None:
    assert described([b"ab", memoryview(b"cd")]) == {"bytes": 4, "text": "abcd"}
    assert described([b"ab", memoryview(b"c\xff")]) == {"bytes": 4, "hex": "616263ff"}
    assert described([b"a" * 40, memoryview(b"b" * 40)], 50) == described([b"a" * 40 + b"b" * 40], 50)


def script(name: str) -> ScriptedLink:
    return ScriptedLink.from_transcript(TRANSCRIPTS / f"{name}.jsonl")


ANSWERS = json.loads((TRANSCRIPTS / "answers.json").read_text(encoding="utf-8"))


def test_generator_and_scope_are_driven_as_they_were() -> None:
    awg, scope = script("awg"), script("scope")
    assert waveform_session(awg, scope) == ANSWERS["waveform"]
    awg.done()
    scope.done()


def test_the_board_is_driven_as_it_was() -> None:
    link = ScriptedFrames.from_transcript(TRANSCRIPTS / "board.jsonl")
    assert board_session(link) == ANSWERS["board"]
    link.done()


def test_a_driver_that_changed_is_found_out() -> None:
    awg = script("awg")
    with pytest.raises(HilError):  # whatever becomes of it in the driver
        waveform_session(awg, script("scope"), high_v=3.9)
    with pytest.raises(ContractError, match=r"awg\.jsonl, line \d+: the driver does not say what was recorded"):
        awg.done()


def test_a_run_keeps_transcripts_when_asked(tmp_path: Path) -> None:
    board = read_bench(TRANSCRIPTS.parent.parent.parent / "benches" / "spiking_board.toml")
    with open_bench(board, tmp_path, wire=True) as opened:
        assert opened.chip is not None
        opened.chip.array(ArraySpec(2))
    lines = read_transcript(tmp_path / "wire" / "board.jsonl")
    assert [line.kind for line in lines[:2]] == ["drain", "write"]
    assert lines[-1].kind == "close"


def test_the_shipped_transcripts_are_small() -> None:
    assert {path.name for path in TRANSCRIPTS.glob("*.jsonl")} == {"awg.jsonl", "scope.jsonl", "board.jsonl"}
    assert all(path.stat().st_size < 50_000 for path in TRANSCRIPTS.iterdir())
