"""Where a message ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_devices.transports.framing import Scanner, messages


def cut(stream: bytes, steps: list[int]) -> list[bytes]:
    """Messages found when `stream` arrives in pieces of these sizes, again and again."""
    scanner, start, end, found, turn = Scanner(), 0, 0, [], 0
    while end < len(stream):
        end = min(len(stream), end + steps[turn % len(steps)])
        turn += 1
        while (stop := scanner.find(stream, end)) >= 0:
            found.append(stream[start:stop])
            start = stop + 1
    return found


@pytest.mark.parametrize(
    "message",
    [
        b"*IDN?",
        b"DATA #15\n\n\n\n\n",
        b'DISP "a #3 b",1',
        b"DISP 'it''s',#11\n",
        b"A #H1F,#B01",
        b"A #9",
        b"A #",
        b"A #3xy",
        b'A "open',
        b'VOLT 1;DATA #203\n"#;VOLT 2',
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_one_message_then_another(message: bytes, step: int) -> None:
    assert cut(message + b"\nNEXT\n", [step]) == [message, b"NEXT"]


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_blocks_of_any_bytes_in_any_pieces(payloads: list[bytes], steps: list[int]) -> None:
    sent = [b"D #" + str(len(str(len(p)))).encode() + str(len(p)).encode() + p for p in payloads]
    assert cut(b"".join(m + b"\n" for m in sent), steps) == sent


def test_end_mark_closes_what_has_no_newline() -> None:
    whole = b"*RST\nDATA #13\n\r\n"
    assert [bytes(m) for m in messages(memoryview(whole))] == [b"*RST", b"DATA #13\n\r\n"]


def test_end_mark_closes_an_indefinite_block() -> None:
    assert [bytes(m) for m in messages(memoryview(b"DATA #0a\nb\n"))] == [b"DATA #0a\nb\n"]


def test_end_mark_closes_a_block_that_is_too_short() -> None:
    assert [bytes(m) for m in messages(memoryview(b"DATA #500099ab\n"))] == [b"DATA #500099ab\n"]
