"""Data sets: read strictly, checked by content, split the same way for ever."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import io
import struct
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from hil.data import dataset, order, published
from hil.data import files as data_files
from hil.data.files import Content
from hil.data.sources import CARDS, CIFAR10, CIFAR100, CIFAR_ARCHIVE, MNIST, Card, describe
from hil.errors import ConfigError, DataError


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def small_files() -> dict[str, bytes]:
    """An MNIST of 20 + 10 images of 28 x 28 whose first pixel tells the example."""
    files = {}
    for part, count in (("train", 20), ("t10k", 10)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0] = np.arange(count)
        images[:, 27, 27] = 255
        files[f"{part}-images-idx3-ubyte"] = idx(images)
        files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(count) % 10)
    return files


def small_card(files: dict[str, bytes], **changes: object) -> Card:
    sums = {name: hashlib.sha256(files[name]).hexdigest() for name in MNIST.sums}
    return dataclasses.replace(MNIST, examples=20, validation=5, test=10, sums=sums, **changes)


def contents(files: dict[str, bytes]) -> dict[str, Content]:
    return {name: Content(held, f"/x/{name}") for name, held in files.items()}


@pytest.fixture(scope="module")
def digits() -> dataset.Dataset:
    return dataset.load("digits")


# ---- digits ---------------------------------------------------------------------------------------------------------------


def test_digits_are_shipped_with_the_split_that_is_documented(digits: dataset.Dataset) -> None:
    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1437, 180, 180]
    assert digits.shape == (1, 8, 8)
    assert digits.train.x.shape == (1437, 64)
    assert digits.train.x.dtype == torch.float32
    assert digits.train.y.dtype == torch.int64
    assert (float(digits.train.x.min()), float(digits.train.x.max())) == (0.0, 1.0)
    assert "C50P49" in digits.source


def test_the_digits_are_stratified_and_every_example_is_used_once(digits: dataset.Dataset) -> None:
    total = torch.zeros(10)
    for split in (digits.train, digits.validation, digits.test):
        counts = split.y.bincount(minlength=10)
        assert (counts / len(split) - 0.1).abs().max() < 0.01
        total += counts
    assert total.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    everything = torch.cat([digits.train.x, digits.validation.x, digits.test.x])
    assert len(torch.unique(everything, dim=0)) == 1797  # no image appears twice


def test_a_published_set_is_standardised_over_its_training_split(digits: dataset.Dataset) -> None:
    found = dataset.load("digits", standardise=True)
    x, made = digits.train.x.double(), found.train.x.double()
    changes = x.std(0) > 0
    assert torch.allclose(made[:, changes].mean(0), torch.zeros(int(changes.sum())).double(), atol=1e-5)
    assert torch.allclose(made[:, changes].std(0, correction=0), torch.ones(int(changes.sum())).double(), atol=1e-5)
    assert not made[:, ~changes].any()
    expected = (digits.test.x.double() - x.mean(0)) / torch.where(changes, x.std(0, correction=0), 1.0)
    assert torch.allclose(found.test.x.double(), expected, atol=1e-4)
    assert found.checksum != digits.checksum
    with pytest.raises(ConfigError, match="published set"):
        dataset.load("digits", standardise=True, targets="numbers")


def test_the_split_never_changes(digits: dataset.Dataset) -> None:
    pixels = torch.cat([s.x for s in (digits.train, digits.validation, digits.test)]).mul(16).byte().numpy()
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == "721f2f18d5f7ee75bddd577b7c496a765836fc0f98533f13473167dc41b956d7"
    # The raw stream of a bit generator is fixed by numpy; were it not, all results would silently change.
    assert order.permutation(8, "split mnist").tolist() == [7, 4, 0, 1, 6, 2, 3, 5]


# ---- IDX and CIFAR-10 readers ---------------------------------------------------------------------------------------------


def test_idx_keeps_shape_and_order() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(published.read_idx(Content(idx(array), "x")), array)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda b: b"", "not an IDX"),
        (lambda b: b"<html>", "not an IDX"),
        (lambda b: b"\x00\x00\x0d" + b[3:], "not an IDX"),  # float items
        (lambda b: b[:9], "header is cut short"),
        (lambda b: b[:-1], "truncated"),
        (lambda b: b + b"\x00", "left over"),
        (lambda b: b[:4] + b"\xff\xff\xff\xff" + b[8:], "truncated"),
    ],
)
def test_a_damaged_idx_file_is_refused_by_name(damage, fault: str) -> None:
    good = idx(np.zeros((3, 2, 2)))
    with pytest.raises(DataError, match=fault) as caught:
        published.read_idx(Content(damage(good), "/data/images"))
    assert caught.value.where == "/data/images"
    assert caught.value.got
    assert caught.value.allowed
    assert caught.value.todo


def test_cifar_planes_stay_red_green_blue() -> None:
    record = bytes([7]) + bytes([1]) * 1024 + bytes([2]) * 1024 + bytes([3]) * 1024
    pixels, labels = published.read_cifar(Content(record * 2, "x"))
    assert labels.tolist() == [7, 7]
    assert pixels.reshape(2, 3, 32, 32)[0, :, 5, 5].tolist() == [1, 2, 3]


def test_cifar_100_is_read_by_its_fine_labels(tmp_path: Path) -> None:
    record = bytes([11, 99]) + bytes([1]) * 1024 + bytes([2]) * 1024 + bytes([3]) * 1024
    pixels, labels = published.read_cifar(Content(record * 3, "x"), labels=2)
    assert labels.tolist() == [99] * 3
    assert pixels.reshape(3, 3, 32, 32)[0, :, 5, 5].tolist() == [1, 2, 3]
    held = {"train.bin": b"".join(bytes([0, n]) + bytes([n]) * 3072 for n in range(20)), "test.bin": record * 10}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in held.items()}
    card = dataclasses.replace(CIFAR100, examples=20, validation=5, test=10, sums=sums)
    put(tmp_path / "cifar-100-binary", held, zipped=False)
    got = published.parse(card, data_files.contents_of(card, tmp_path))
    assert (got.train.x[:, 0] * 255).round().int().tolist() == got.train.y.tolist()
    assert got.test.y.tolist() == [99] * 10
    assert (got.classes[0], got.classes[99], len(got.classes)) == ("apple", "worm", 100)
    (tmp_path / "other" / "cifar-100-python").mkdir(parents=True)
    with pytest.raises(DataError, match="pickles"):
        dataset.load("cifar100", tmp_path / "other")


@pytest.mark.parametrize("length", [0, 3072, 3074])
def test_a_cut_cifar_record_is_refused(length: int) -> None:
    with pytest.raises(DataError, match="whole number of records"):
        published.read_cifar(Content(bytes(length), "batch"))


# ---- from files to splits -------------------------------------------------------------------------------------------------


def test_the_validation_split_is_taken_from_the_training_files_only() -> None:
    files = small_files()
    got = published.parse(small_card(files), contents(files))
    train, validation = ((s.x[:, 0] * 255).round().int() for s in (got.train, got.validation))
    assert sorted(train.tolist() + validation.tolist()) == list(range(20))
    assert (got.test.x[:, 0] * 255).round().int().tolist() == list(range(10))  # the publisher's order
    assert (train % 10 == got.train.y).all()
    assert float(got.train.x[:, -1].min()) == 1.0


def test_a_label_that_stands_for_no_class_is_refused() -> None:
    files = small_files()
    files["t10k-labels-idx1-ubyte"] = idx(np.array([0, 1, 2, 10, 4, 5, 6, 7, 8, 9]))
    with pytest.raises(DataError, match="stands for no class") as caught:
        published.parse(small_card(files), contents(files))
    assert caught.value.where == "/x/t10k-labels-idx1-ubyte"
    assert "10 at example 3" in caught.value.got


def test_labels_and_images_that_do_not_match_are_refused() -> None:
    files = small_files()
    files["train-labels-idx1-ubyte"] = idx(np.zeros(19))
    with pytest.raises(DataError, match="one label for each image"):
        published.parse(small_card(files), contents(files))


def test_one_changed_pixel_is_found() -> None:
    files = small_files()
    card = small_card(files)
    held = bytearray(files["t10k-images-idx3-ubyte"])
    held[-1] ^= 1
    files["t10k-images-idx3-ubyte"] = bytes(held)
    with pytest.raises(DataError, match="not the published one") as caught:
        published.parse(card, contents(files))
    assert caught.value.where == "/x/t10k-images-idx3-ubyte"
    assert caught.value.allowed == card.sums["t10k-images-idx3-ubyte"]


# ---- folders --------------------------------------------------------------------------------------------------------------


def put(folder: Path, files: dict[str, bytes], zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, held in files.items():
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(held) if zipped else held)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("inside", ["", "mnist"])
def test_a_folder_may_hold_plain_or_gzipped_files(tmp_path: Path, zipped: bool, inside: str) -> None:
    files = small_files()
    put(tmp_path / inside, files, zipped)
    found = data_files.contents_of(small_card(files), tmp_path)
    assert {name: content.data for name, content in found.items()} == files


SPELLINGS = (
    "{part}-{what}-idx{rank}-ubyte", "{part}-{what}.idx{rank}-ubyte", "{part}_{what}_idx{rank}_ubyte",
    "{part}-{what}.idx{rank}", "{part}-{what}-ubyte", "{part}-{what}.ubyte", "{part}-{what}.bin", "{part}-{what}",
)  # fmt: skip


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("inside", ["", "MNIST/raw", "mnist/raw", "raw", "Mnist"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_files_go_by_all_their_usual_names(tmp_path: Path, spelling: str, inside: str, zipped: bool) -> None:
    files, given = small_files(), {}
    for name, held in files.items():
        part, what, idx_rank, _ = name.split("-")
        given[spelling.format(part=part, what=what, rank=idx_rank[-1])] = held
    put(tmp_path / inside, given, zipped)
    found = data_files.contents_of(small_card(files), tmp_path)
    assert {name: content.data for name, content in found.items()} == files


def test_each_of_two_sets_is_found_in_its_folder_of_torchvision(tmp_path: Path) -> None:
    mnist = small_files()
    fashion = {name: held[:-1] + bytes([held[-1] ^ 1]) for name, held in mnist.items()}
    for folder, files in (("MNIST", mnist), ("FashionMNIST", fashion)):
        put(tmp_path / folder / "raw", files, zipped=False)
        put(tmp_path / folder / "raw", files, zipped=True)
    for name, files in (("mnist", mnist), ("fashion-mnist", fashion)):
        found = data_files.contents_of(small_card(files, name=name), tmp_path)
        assert {name: content.data for name, content in found.items()} == files


def test_files_may_each_have_a_folder_of_their_own(tmp_path: Path) -> None:
    files = small_files()
    for name, held in files.items():
        put(tmp_path / name, {name: held}, zipped=False)
    assert {name: content.data for name, content in data_files.contents_of(small_card(files), tmp_path).items()} == files


@pytest.mark.parametrize(
    "there", ["cifar-10-batches-py/data_batch_1", "cifar-10-python.tar.gz", "cifar10/cifar-10-python.tar.gz"]
)
def test_the_pickles_of_cifar_are_never_opened(tmp_path: Path, there: str) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_bytes(b"cos\nsystem\n(S'touch here'\ntR.")
    with pytest.raises(DataError, match="pickles") as caught:
        dataset.load("cifar10", tmp_path)
    assert CIFAR_ARCHIVE in caught.value.allowed
    card, packed = cifar_archive(tmp_path)
    (tmp_path / CIFAR_ARCHIVE).write_bytes(packed)  # beside them it is read
    assert len(data_files.contents_of(card, tmp_path)) == len(card.sums)


def test_missing_files_are_named_and_nothing_is_downloaded_into_a_given_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 of 4 files") as caught:
        dataset.load("mnist", tmp_path)
    assert caught.value.where == str(tmp_path)
    assert "train-images-idx3-ubyte" in caught.value.got
    assert list(tmp_path.iterdir()) == []


def test_the_files_of_another_set_are_refused(tmp_path: Path) -> None:
    put(tmp_path, small_files(), zipped=True)
    with pytest.raises(DataError, match="not the published one"):
        dataset.load("fashion-mnist", tmp_path)


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    files = small_files()
    put(tmp_path, files, zipped=True)
    victim = tmp_path / "train-images-idx3-ubyte.gz"
    victim.write_bytes(victim.read_bytes()[:-9])
    with pytest.raises(DataError, match="truncated gzip") as caught:
        data_files.contents_of(small_card(files), tmp_path)
    assert caught.value.where == str(victim)


def cifar_archive(tmp_path: Path) -> tuple[Card, bytes]:
    batches = {name: bytes([k]) + bytes(3072) for k, name in enumerate(CIFAR10.sums)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, held in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(held)
            tar.addfile(member, io.BytesIO(held))
    sums = {name: hashlib.sha256(held).hexdigest() for name, held in batches.items()}
    return dataclasses.replace(CIFAR10, examples=5, validation=1, test=1, sums=sums), packed.getvalue()


def test_cifar_is_read_from_its_archive_without_unpacking(tmp_path: Path) -> None:
    card, packed = cifar_archive(tmp_path)
    (tmp_path / CIFAR_ARCHIVE).write_bytes(packed)
    got = published.parse(card, data_files.contents_of(card, tmp_path))
    assert got.test.y.tolist() == [5]
    assert sorted(got.train.y.tolist() + got.validation.y.tolist()) == [0, 1, 2, 3, 4]
    assert [p.name for p in tmp_path.iterdir()] == [CIFAR_ARCHIVE]


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    card, packed = cifar_archive(tmp_path)
    (tmp_path / CIFAR_ARCHIVE).write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="archive"):
        data_files.contents_of(card, tmp_path)


# ---- downloads, from a mirror on this machine -----------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address it is served at."""
    served = tmp_path / "served"
    served.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HIL_DATA", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_what_is_missing_is_downloaded_once_from_the_first_mirror_that_is_right(mirror: tuple[Path, str], kept: Path) -> None:
    served, url = mirror
    files = small_files()
    put(served / "good", files, zipped=True)
    put(served / "portal", dict.fromkeys(files, b"<html>please log in</html>"), zipped=False)
    for page in (served / "portal").iterdir():
        page.rename(page.with_name(page.name + ".gz"))
    card = small_card(files, mirrors=(f"{url}nothing/", f"{url}portal/", f"{url}good/"))
    assert {n: c.data for n, c in data_files.contents_of(card, None).items()} == files
    assert sorted(p.name for p in (kept / "mnist").iterdir()) == sorted(f"{name}.gz" for name in files)
    for page in (served / "good").iterdir():
        page.unlink()
    assert {n: c.data for n, c in data_files.contents_of(card, None).items()} == files  # the second time needs no mirror


def test_an_archive_is_downloaded_and_checked(mirror: tuple[Path, str], kept: Path, tmp_path: Path) -> None:
    served, url = mirror
    card, packed = cifar_archive(tmp_path)
    (served / CIFAR_ARCHIVE).write_bytes(packed)
    card = dataclasses.replace(card, mirrors=(f"{url}{CIFAR_ARCHIVE}",))
    assert len(data_files.contents_of(card, None)) == 6
    assert (kept / "cifar10" / CIFAR_ARCHIVE).read_bytes() == packed


def test_no_mirror_leaves_nothing_behind_and_says_what_was_tried(mirror: tuple[Path, str], kept: Path) -> None:
    served, url = mirror
    files = small_files()
    put(served / "bad", {name: held + b"\x00" for name, held in files.items()}, zipped=True)
    card = small_card(files, mirrors=(f"{url}nothing/", f"{url}bad/"))
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        data_files.contents_of(card, None)
    assert "404" in caught.value.got
    assert "not the published one" in caught.value.got
    assert str(kept) in caught.value.todo
    assert list((kept / "mnist").iterdir()) == []


# ---- what a run uses ------------------------------------------------------------------------------------------------------


def test_batches_cover_the_split_and_depend_on_seed_and_epoch_alone(digits: dataset.Dataset) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([batch.which for batch in dataset.batches(digits.train, 128, seed, epoch)]).tolist()

    first = order(0, 3)
    assert sorted(first) == list(range(1437))
    assert order(0, 3) == first
    assert order(0, 4) != first
    assert order(1, 3) != first


def test_batches_carry_the_examples_they_name_and_go_on_in_the_middle(digits: dataset.Dataset) -> None:
    all_batches = list(dataset.batches(digits.train, 100, 5, 0))
    assert [len(b.y) for b in all_batches] == [100] * 14 + [37]
    for x, y, which in islice(dataset.batches(digits.train, 100, 5, 0), 12, None):
        assert torch.equal(x, digits.train.x[which])
        assert torch.equal(y, digits.train.y[which])
    assert torch.equal(next(islice(dataset.batches(digits.train, 100, 5, 0), 12, None)).which, all_batches[12].which)


def test_a_subset_is_a_prefix_of_the_training_split_only(digits: dataset.Dataset) -> None:
    small = dataset.subset(digits, 200)
    assert torch.equal(small.train.x, digits.train.x[:200])
    assert small.train.y.bincount(minlength=10).min() >= 18  # a prefix of a stratified order is stratified
    assert small.test is digits.test
    for wrong in (0, -1, 1438):
        with pytest.raises(ConfigError, match="training examples"):
            dataset.subset(digits, wrong)


def test_a_batch_of_nothing_is_refused(digits: dataset.Dataset) -> None:
    with pytest.raises(ConfigError, match="batch"):
        next(dataset.batches(digits.train, 0, 0, 0))


def test_an_unknown_name_brings_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="no such data set") as caught:
        dataset.load("fashon-mnist")
    assert "fashion-mnist" in caught.value.todo


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_is_whole(card: Card) -> None:
    assert describe(card.name) is card
    assert len(set(card.classes)) == len(card.classes) == (100 if card.name == "cifar100" else 10)
    assert all(len(value) == 64 for value in card.sums.values())
    assert f"{card.test:,} test" in card.line
