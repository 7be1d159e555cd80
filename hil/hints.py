"""Words of a command that a message tells the user to type, as the shell takes them."""

from __future__ import annotations

import shlex


def quoted(word: object) -> str:
    """A path, or another word, quoted where the shell would take it apart.

    >>> print("hil resume", quoted("runs/first run"))
    hil resume 'runs/first run'
    >>> print("hil resume", quoted("-x"))
    hil resume ./-x
    """
    text = str(word)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 output", "2 outputs", "1,024 outputs"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
