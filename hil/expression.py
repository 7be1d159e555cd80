"""A function of one variable as an expression, evaluated by walking its tree over tensors: nothing is compiled or executed.

    expression = "a" | number | name "(" expression { "," expression } ")"          mul(sin(a), add(a, 0.5))

    add sub mul min max        of two
    div(u, v) = u / v where |v| > 1e-3, else 1        step(u) = 1 where u >= 0, else 0
    neg abs sin cos tanh       of one                 bell(u) = exp(-u^2)       square(u) = u^2

The text is the value: it prints, compares and goes into a file. Trees are bounded, so that no text can exhaust the stack.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from hil.errors import ConfigError

MAX_NODES = 200
VARIABLE = "a"
SMALLEST_DIVISOR = 1e-3


@dataclass(frozen=True, slots=True)
class Node:
    """A function of `below`, the variable, or a number. name: of the function, "a", or "" for a number."""

    name: str
    below: tuple[Node, ...] = ()
    number: float = 0.0

    def __str__(self) -> str:
        if not self.name:
            return f"{self.number:.6g}"
        return f"{self.name}({', '.join(map(str, self.below))})" if self.below else self.name

    def __iter__(self) -> Iterator[Node]:
        """All nodes, a node before those below it."""
        yield self
        for node in self.below:
            yield from node


def _divided(u: Tensor, v: Tensor) -> Tensor:
    safe = v.abs() > SMALLEST_DIVISOR
    return torch.where(safe, u / torch.where(safe, v, torch.ones_like(v)), torch.ones_like(v))


OF_ONE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "square": torch.square,
    "bell": lambda u: u.square().neg_().exp_(),
    "step": lambda u: torch.where(u.isnan(), u, (u >= 0).to(u.dtype)),
}
OF_TWO: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": _divided,
    "min": torch.minimum,
    "max": torch.maximum,
}


@dataclass(frozen=True, slots=True)
class Expression:
    """The value of `text` at the pre-activation a."""

    text: str

    def __post_init__(self) -> None:
        parsed(self.text)

    def __call__(self, pre: Tensor) -> Tensor:
        value = walk(parsed(self.text), pre)
        return value.clone() if value is pre else value


def walk(node: Node, pre: Tensor) -> Tensor:
    """The value of the tree at `pre`, its shape and dtype."""
    if node.name == VARIABLE:
        return pre
    if not node.name:
        return torch.full_like(pre, node.number)
    values = [walk(below, pre) for below in node.below]
    if len(values) == 1:
        return OF_ONE[node.name](values[0])
    return OF_TWO[node.name](values[0], values[1])


@lru_cache(maxsize=4096)
def parsed(text: str) -> Node:
    """The tree of `text`.

    Raises:
        ConfigError: not such an expression; the nearest function is named.
    """
    tokens = re.findall(r"[A-Za-z_]\w*|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[(),]|\S", text, re.ASCII)
    if len(tokens) > 4 * MAX_NODES:
        raise _wrong(text, f"{len(tokens)} words", f"up to {MAX_NODES} nodes")
    node, rest = _read(tokens, text, 0)
    if rest != len(tokens):
        raise _wrong(text, f'"{tokens[rest]}" after the end', "one expression")
    return node


def _read(tokens: list[str], text: str, at: int) -> tuple[Node, int]:
    word = tokens[at] if at < len(tokens) else ""
    if word == VARIABLE:
        return Node(VARIABLE), at + 1
    if word in OF_ONE or word in OF_TWO:
        return _application(word, tokens, text, at + 1)
    try:
        number = float(word)
    except ValueError:
        near = difflib.get_close_matches(word, [*OF_ONE, *OF_TWO], 1)
        allowed = f"a, a number, or one of {', '.join([*OF_TWO, *OF_ONE])}"
        raise _wrong(text, f'"{word}"' if word else "its end too early", allowed, near[0] if near else "") from None
    if not math.isfinite(number):
        raise _wrong(text, word, "finite numbers")
    return Node("", (), number), at + 1


def _application(name: str, tokens: list[str], text: str, at: int) -> tuple[Node, int]:
    below = []
    for before in "(" if name in OF_ONE else "(,":
        at = _past(before, tokens, text, at)
        node, at = _read(tokens, text, at)
        below.append(node)
    return Node(name, tuple(below)), _past(")", tokens, text, at)


def _past(word: str, tokens: list[str], text: str, at: int) -> int:
    if at >= len(tokens) or tokens[at] != word:
        raise _wrong(text, f'"{tokens[at]}"' if at < len(tokens) else "its end too early", f'"{word}"')
    return at + 1


def _wrong(text: str, got: str, allowed: str, near: str = "") -> ConfigError:
    shown = text if len(text) < 60 else text[:57] + "..."
    return ConfigError(
        "not an expression",
        where=f"feedback g {shown!r}",
        got=got,
        allowed=allowed,
        todo=f"did you mean {near}?" if near else "",
    )
