"""Bad data are refused with the row, what was found and what is allowed; nothing else is ever raised, nothing is unpickled."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hil.data.dataset import load
from hil.errors import ConfigError, DataError

GOOD = "a,b,what\n" + "".join(f"{i},{i * i}.5,{'odd' if i % 2 else 'even'}\n" for i in range(40))


def changed(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


TABLES: list[tuple[Callable[[str], str], dict[str, Any], list[str]]] = [
    (changed("3,9.5,odd", "3,9.5"), {}, ["line 5", "2 values", "3, as the first line has"]),
    (changed("3,9.5,odd", "3,9.5,odd,7"), {}, ["line 5", "4 values"]),
    (changed("3,9.5,odd", "3,nine,odd"), {}, ["line 5", "column b", '"nine"', "a finite number"]),
    (changed("3,9.5,odd", "3,,odd"), {}, ["line 5", "an empty cell in b"]),
    (changed("3,9.5,odd", "3,nan,odd"), {}, ["line 5", '"nan"']),
    (changed("3,9.5,odd", "3,inf,odd"), {}, ["line 5", '"inf"']),
    (changed("3,9.5,odd", "3,1e39,odd"), {}, ["line 5", "inf, input 2"]),
    (changed("3,9.5,odd", "3,1_000,odd"), {}, ["line 5", "1_000"]),
    (changed("3,9.5,odd", '3,"9,5",odd'), {}, ["line 5", '"9,5"', "decimal point"]),
    (changed("3,9.5,odd", "3,9.5,"), {}, ["line 5", "target is missing"]),
    (changed("3,9.5,odd", '3,9.5,"odd'), {}, ["quotes in pairs"]),
    (changed("3,9.5,odd", "3,9.5,odd\n\n\n7,nine,odd"), {}, ["line 8", "nine"]),
    (changed("a,b,what", "a,a,what"), {}, ["different names"]),
    (changed("a,b,what", "1,2,3"), {}, ["no names", "1,2,3"]),
    (lambda text: "", {}, ["an empty file"]),
    (changed("3,9.5,odd", "3,o.5,odd"), {"inputs": ["a"], "target": "b"}, ["line 5", '"o.5"']),
    (changed("3,9.5,odd", "e,9.5,odd"), {"inputs": ["b"], "target": "a"}, ["line 5", '"e"']),
    (lambda text: "a,b,what\n", {}, ["no examples"]),
    (lambda text: text.splitlines()[0] + "\n1,2,x\n2,3,y\n", {}, ["split is empty"]),
    (str, {"target": "wat"}, ['"wat"', 'did you mean "what"']),
    (str, {"inputs": ["a", "what"]}, ["used twice"]),
    (str, {"split": {"group": "patient"}}, ["no such column", '"patient"']),
    (str, {"target": "what", "targets": "numbers"}, ["line 2", '"even"', "numbers"]),
    (str, {"inputs": ["a"], "target": "b", "targets": "classes"}, ["line 2", "0.5", "whole numbers"]),
    (str, {"classes": ["even", "odds"]}, ["line 3", '"odd"', 'did you mean "odds"']),
    (str, {"tarjet": "what"}, ["tarjet", 'Did you mean "target"']),
    (str, {"split": {"tset": 0.1}}, ["tset", 'Did you mean "test"']),
    (str, {"split": {"test": 0.6, "validation": 0.5}}, ["shares"]),
    (str, {"split": {"test": 0.0}}, ["shares"]),
    (str, {"stream": True}, ["in memory already"]),
    (str, {"sequence": True}, ["(time, features)"]),
]


@pytest.mark.parametrize(("change", "more", "parts"), TABLES, ids=[parts[0] + str(n) for n, (_, _, parts) in enumerate(TABLES)])
def test_a_bad_table_is_refused_by_its_line(
    tmp_path: Path, change: Callable[[str], str], more: dict[str, Any], parts: list[str]
) -> None:
    (tmp_path / "table.csv").write_text(change(GOOD), encoding="utf-8")
    with pytest.raises((DataError, ConfigError)) as caught:
        load(tmp_path / "table.csv", **more)
    for part in parts:
        assert part in str(caught.value)
    assert "nothing was opened" in str(caught.value)
    assert "Next:" in str(caught.value)


X, Y = np.random.default_rng(0).normal(size=(40, 2, 3)), np.arange(40) % 4
WITH_NAN = X.copy()
WITH_NAN[7, 1, 2] = np.nan
ARRAYS: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({"x": X}, {}, ["no array y", "x"]),
    ({"x": X, "y": Y[:39]}, {}, ["not one target for each example", "(39,)"]),
    ({"x": WITH_NAN, "y": Y}, {}, ["x[7]", "nan, input 6", "finite"]),
    ({"x": X.astype(complex), "y": Y}, {}, ["complex128", "imaginary"]),
    ({"x": X.astype(str), "y": Y}, {}, ["inputs that are no numbers"]),
    ({"x": np.array([{}] * 40), "y": Y}, {}, ["pickles", "dtype object"]),
    ({"x": X, "y": np.array([None] * 40)}, {}, ["pickles"]),
    ({"x": X, "y": Y.astype("M8[s]")}, {}, ["kind that is not read", "datetime64"]),
    ({"x": X, "y": np.where(Y == 1, np.nan, Y + 0.5)}, {}, ["x[1]", "nan", "no finite number"]),
    ({"x": X[:0], "y": Y[:0]}, {}, ["no examples"]),
    ({"x": X, "y": np.stack([Y, Y], 1)}, {}, ["targets that do not fit", "write sequence = true"]),
    ({"x": X, "y": np.stack([Y] * 3, 1)}, {"sequence": True}, ["targets that do not fit", "2 steps", "give targets"]),
    ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, {}, ["another shape", "(1, 3)"]),
    (
        {"x_train": X, "y_train": Y, "x_test": X, "y_test": np.where(Y == 2, 9, Y)},
        {},
        ["x_test[2]", '"9"', "no training example"],
    ),
    ({"x_train": X, "y_train": Y, "x_val": X, "y_val": Y, "x_valid": X, "y_valid": Y}, {}, ["do not go together"]),
    ({"x_test": X, "y_test": Y}, {}, ["do not go together"]),
    ({"x": X, "y": Y}, {"split": {"group": "who"}}, ["no array who"]),
    ({"x": X, "y": Y, "who": np.zeros(40)}, {"split": {"group": "who"}}, ["split is empty", "1 groups"]),
]


@pytest.mark.parametrize(("arrays", "more", "parts"), ARRAYS, ids=[parts[0] + str(n) for n, (_, _, parts) in enumerate(ARRAYS)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_bad_archive_is_refused_by_its_array(
    tmp_path: Path, arrays: dict[str, Any], more: dict[str, Any], parts: list[str], packed: bool
) -> None:
    (np.savez_compressed if packed else np.savez)(tmp_path / "x.npz", **arrays)
    with pytest.raises((DataError, ConfigError)) as caught:
        load(tmp_path / "x.npz", **more)
    for part in parts:
        assert part in str(caught.value)


def test_a_bad_folder_of_images_is_refused_by_its_file(tmp_path: Path) -> None:
    def image(name: str, mode: str = "L", size: tuple[int, int] = (4, 3)) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size).save(tmp_path / name)

    def refused(*parts: str, **more: Any) -> None:
        with pytest.raises((DataError, ConfigError)) as caught:
            load(tmp_path, **more)
        for part in parts:
            assert part in str(caught.value)

    refused("no images", str(tmp_path))
    for number in range(10):
        image(f"cat/{number}.png")
        image(f"dog/{number}.png")
    (tmp_path / ".hidden").touch()
    (tmp_path / "dog" / "Thumbs.db").touch()
    assert load(tmp_path).shape == (1, 3, 4)
    assert load(tmp_path, colour=True).shape == (3, 3, 4)
    image("dog/5.png", size=(5, 3))
    refused("dog/5.png", "3 x 5", "3 x 4, as the first image has")
    image("dog/5.png", mode="RGB")
    refused("dog/5.png", "grey and coloured", "mode RGB")
    assert load(tmp_path, colour=False).shape == (1, 3, 4)
    (tmp_path / "dog" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    refused("dog/5.png", "damaged")
    (tmp_path / "dog" / "5.png").unlink()
    (tmp_path / "dog" / "notes.doc").touch()
    refused("notes.doc", "no image")
    (tmp_path / "dog" / "notes.doc").unlink()
    (tmp_path / "notes.txt").touch()
    refused("notes.txt", "beside the folders")
    (tmp_path / "notes.txt").unlink()
    refused("groups", split={"group": "who"})


class Faulty(torch.utils.data.Dataset[Any]):
    """Fails at one example."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, number: int) -> Any:
        if number == 13:
            raise RuntimeError("the file of recording 13 is gone")
        return torch.zeros(3), number % 2


PAIRS = [(torch.zeros(3), 0), (torch.ones(3), 1)] * 10
OBJECTS: list[tuple[Any, list[str]]] = [
    (3, ["not data", "3 (int)", "a torch Dataset"]),
    (torch.utils.data.DataLoader(PAIRS), ["not data", "data set of the loader"]),  # type: ignore[arg-type]
    (np.zeros((20, 3)), ["not data", "(x, y)"]),
    (Faulty(), ["RuntimeError", "recording 13 is gone"]),
    ([*PAIRS, (torch.zeros(4), 0)], ["example 20", "(4,)", "(3,), as the first has"]),
    ([*PAIRS, (torch.zeros(3), "one")], ["example 20", "dtype <U3"]),
    ([*PAIRS, (torch.zeros(3), 0, 1)], ["example 20", "no pair"]),
    ([*PAIRS, ({}, 0)], ["example 20", "dict"]),
    ([*PAIRS, (torch.full((3,), float("nan")), 0)], ["example 20", "nan, input 1"]),
    ([{"image": 1, "label": 0}], ["keys image, label", "keys x and y"]),
    ([], ["no examples"]),
    ({"train": PAIRS, "val": PAIRS, "validation": PAIRS}, ["do not go together"]),
    (([[1.0], [2.0, 3.0]], [0, 1]), ["example 1", "(2,)", "(1,), as the first has"]),
    ({"x": [torch.zeros(5, 2), torch.zeros(6, 2)], "y": [0, 1]}, ["example 1", "(6, 2)", "(5, 2), as the first has"]),
]


@pytest.mark.parametrize(("value", "parts"), OBJECTS, ids=[parts[0] + str(n) for n, (_, parts) in enumerate(OBJECTS)])
def test_what_python_gives_is_refused_by_its_example(value: Any, parts: list[str]) -> None:
    with pytest.raises((DataError, ConfigError)) as caught:
        load(value)
    for part in parts:
        assert part in str(caught.value)


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=X, y=Y)
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, X)
    return file.getvalue()


GIVEN = {".csv": GOOD.encode(), ".npz": archive(), ".npy": array()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(list(GIVEN)), data=st.data())
def test_no_damage_raises_anything_else(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    whole = bytearray(GIVEN[suffix])
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    file = tmp_path / f"x{suffix}"
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    np.save(tmp_path / "y.npy", Y)
    try:
        found = load(file, **({"target": "y.npy"} if suffix == ".npy" else {}))
    except (DataError, ConfigError):
        return
    assert torch.isfinite(found.train.x).all()


def test_a_file_that_is_gone_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(GOOD, encoding="utf-8")
    with pytest.raises(DataError, match=r"did you mean|no such file") as caught:
        load(tmp_path / "tabel.csv")
    assert 'did you mean "table.csv"' in str(caught.value)
    with pytest.raises(ConfigError) as unknown:
        load("digitts")
    assert 'did you mean "digits"' in str(unknown.value)
