"""Expressions as DEAP's trees: generated, crossed and mutated there, evaluated in hil/expression.py.

A number is a placeholder while DEAP makes a tree, and is drawn afterwards. DEAP's trees never meet `compile`: they go back to
text, and text is walked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

from deap import gp

from hil.expression import OF_ONE, OF_TWO, VARIABLE, Node, parsed

ARGUMENT, NUMBER = "ARG0", "number"  # the names of the variable and of the placeholder in DEAP
NUMBERS_REACH = 2.0
FIRST_HEIGHT = (1, 3)


@cache
def _primitives() -> Any:
    """The functions of hil/expression.py; one type, so DEAP's choice never depends on the order of a set."""
    found = gp.PrimitiveSet("g", 1)
    for arity, functions in ((1, OF_ONE), (2, OF_TWO)):
        for name, function in functions.items():
            found.addPrimitive(function, arity, name=name)
    found.addTerminal(0.0, name=NUMBER)
    return found


def grown() -> str:
    """A random expression; draws from `random`, so only inside `keyed`."""
    return _text(gp.PrimitiveTree(gp.genHalfAndHalf(_primitives(), *FIRST_HEIGHT)))


def crossed(one: str, other: str, height: int, nodes: int) -> tuple[str, str]:
    """Two trees with a subtree exchanged; a child beyond the limits is its parent again."""
    first, second = gp.cxOnePoint(_tree(one), _tree(other))
    return _within(first, one, height, nodes), _within(second, other, height, nodes)


def mutated(text: str, height: int, nodes: int) -> str:
    """One of DEAP's mutations, or its numbers moved a little."""
    tree, choice = _tree(text), random.random()
    if choice < 0.35:
        (tree,) = gp.mutUniform(tree, lambda pset, type_: gp.genFull(pset, 0, 2, type_), _primitives())
    elif choice < 0.55:
        (tree,) = gp.mutNodeReplacement(tree, _primitives())
    elif choice < 0.7:
        (tree,) = gp.mutShrink(tree)
    elif choice < 0.8:
        (tree,) = gp.mutInsert(tree, _primitives())
    else:
        tree = gp.PrimitiveTree([_moved(node) for node in tree])
    return _within(tree, text, height, nodes)


def _within(tree: Any, parent: str, height: int, nodes: int) -> str:
    return parent if tree.height > height or len(tree) > nodes else _text(tree)


def _moved(node: Any) -> Any:
    return node if _is_function(node) or node.name == ARGUMENT else _number(_value(node) + random.gauss(0, 0.3))


def _is_function(node: Any) -> bool:
    return isinstance(node, gp.Primitive)


def _value(node: Any) -> float:
    return random.uniform(-NUMBERS_REACH, NUMBERS_REACH) if node.name == NUMBER else float(node.value)


def _number(value: float) -> Any:
    return gp.Terminal(round(value, 4), False, object)


def _tree(text: str) -> Any:
    """Text -> DEAP's tree: the nodes in prefix order."""
    known = _primitives().mapping
    names = [(ARGUMENT if node.name == VARIABLE else node.name, node.number) for node in parsed(text)]
    found = [known[name] if name else _number(number) for name, number in names]
    return gp.PrimitiveTree(found)


def _text(tree: Sequence[Any]) -> str:
    """DEAP's tree -> text, its placeholders filled."""
    node, rest = _read(tree, 0)
    assert rest == len(tree)  # DEAP's operators keep a tree whole
    return str(node)


def _read(tree: Sequence[Any], at: int) -> tuple[Node, int]:
    here = tree[at]
    if not _is_function(here):
        leaf = Node(VARIABLE) if here.name == ARGUMENT else Node("", (), round(_value(here), 4))
        return leaf, at + 1
    below, at = [], at + 1
    for _ in range(here.arity):
        node, at = _read(tree, at)
        below.append(node)
    return Node(here.name, tuple(below)), at
