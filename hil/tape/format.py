"""The tape of one device on disk, and how it is known to be whole.

    tape/<reel>/        a folder for each flat array: its chunks 0, 1, ..., raw values, little endian; zeros fill the last one
        input           float32     drives of all shots, one after another, row by row
        output          float32     answers that are not spikes
        spikes          uint8       answers that are: one bit a value, first bit highest; for -1/0/+1 a second plane for -1;
                                    and answers of a port with `bits`: its whole numbers, one byte or two a value
        index           int64       (shots, 22): a ROW a shot, where its values lie, its shapes, flags, time and digests
    tape/<reel>.json    the format; what the device is; shots and lengths that count, and the SHA-256 of the index up to there

The JSON is replaced last and wholly, so it says what was written before it; whatever the arrays hold beyond is the torn tail of
a killed run, and is dropped. Everything up to there is checked: each chunk must be there in its full size, the index must have
its sum, and each drive and answer its digest when it is read.

    key = XXH3-128( settings, key of the shot before if the device remembers it, shape, values )

names what was asked: of a static device the drive alone, of a temporal one all drives since the last reset. It and the digests
guard against chance, not malice; they are made of every shot while it is recorded, and SHA-256 takes fifteen times as long.
"""

from __future__ import annotations

import hashlib
import json
import stat
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from hil.device import Port, Spec
from hil.errors import ContractError, RunError
from hil.files import kind_of, read_bytes, read_object, remove_tree, there
from hil.neuron import NeuronModel
from hil.slew import NO_SLEW, Slew

Floats = NDArray[np.float32]
Place = tuple[int, tuple[int, ...]]  # where values begin in their array, and their shape
Digests = tuple[bytes, bytes, bytes]  # key, answer, settings

FORMAT = 4
MOST_HEAD_BYTES = 1 << 20
DIMENSIONS = 4
ROW = np.dtype(
    [
        ("in_start", "<i8"), ("in_ndim", "<i8"), ("in_shape", "<i8", DIMENSIONS),
        ("kind", "<i8"), ("out_start", "<i8"), ("out_ndim", "<i8"), ("out_shape", "<i8", DIMENSIONS),
        ("flags", "<i8"), ("provenance", "<i8"), ("time_ns", "<i8"),
        ("key", "<i8", 2), ("answer", "<i8", 2), ("settings", "<i8", 2),
    ]
)  # fmt: skip
COLUMNS = ROW.itemsize // 8
LINE = struct.Struct("<" + f"{COLUMNS - 6}q" + "16s" * 3)  # the same; a field of ROW at a time takes ten times as long
FLOAT, BITS, TERNARY, BYTES, WORDS = range(5)  # kind
CODES: Mapping[int, tuple[int, np.dtype[Any]]] = {  # of a port with bits
    8: (BYTES, np.dtype("|u1")), 16: (WORDS, np.dtype("<u2"))
}  # fmt: skip
RESET, PROGRAM = 1, 2  # flags: what came between the shot before and this one
PROVENANCES = ("real", "twin", "replay", "unknown")
CHUNKS: Mapping[str, tuple[int, ...]] = {
    "input": (1 << 19,),
    "output": (1 << 19,),
    "spikes": (1 << 21,),
    "index": (1024, COLUMNS),
}
DTYPES = {"input": "<f4", "output": "<f4", "spikes": "|u1", "index": "<i8"}
WINDOW = 1 << 21  # values read at once
DIGEST_BYTES = 16
MOST_ITEMS = 1 << 50
NO_KEY = bytes(DIGEST_BYTES)


@dataclass(frozen=True)
class ReelHead:
    """The JSON of a reel.

    Args:
        made: how an array was asked of its chip.
        shots, lengths, sum: what counts, see the module.
        slew: how the device kept its steps; in the file only where its port limits them.
        floats: shots whose answers were not the whole numbers that the port tells of, and are kept as float32; in the file
            only where there are any.
    """

    spec: Spec
    streaming: bool
    made: Mapping[str, Any]
    settings: str
    shots: int = 0
    lengths: Mapping[str, int] | None = None
    sum: str = ""
    slew: Slew = NO_SLEW
    floats: int = 0

    def length(self, name: str) -> int:
        """Return the rows of one array that count."""
        return self.shots if name == "index" else (self.lengths or {}).get(name, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows that count, uncompressed."""
        return sum(self.length(name) * row_bytes(name) for name in CHUNKS)

    def text(self) -> str:
        """Write the head as JSON."""
        table = {"format": FORMAT, **asdict(self), "spec": self.spec.table()}
        if self.slew == NO_SLEW:
            del table["slew"]
        if not self.floats:
            del table["floats"]
        return json.dumps(table, indent=1) + "\n"

    def same_device(self, other: ReelHead) -> bool:
        """True if both are of the same device, however much was recorded."""

        def bare(head: ReelHead) -> ReelHead:
            return replace(head, shots=0, lengths=None, sum="", floats=0)

        return bare(self) == bare(other)


def read_head(path: Path) -> ReelHead:
    """Raises: RunError: missing or damaged."""
    try:
        table = read_object(path, MOST_HEAD_BYTES)
        if (found := table.pop("format")) != FORMAT:
            raise ValueError(
                f"format {found}: a tape of another version of hil, to be replayed with that; this one has {FORMAT}"
            )
        spec = table.pop("spec")
        ports = {name: None if spec[name] is None else Port(**spec[name]) for name in ("inputs", "outputs", "params")}
        neurons = {"neurons": NeuronModel(**spec["neurons"])} if spec.get("neurons") else {}
        head = ReelHead(Spec(**{**spec, **ports, **neurons}), **{**table, "slew": Slew(**table.get("slew", {}))})
        _check_kinds(head)
        return head
    except RunError as error:
        raise damaged(path, error.got or error.what, "the file that hil wrote") from error
    except (ValueError, KeyError, TypeError, AttributeError, ContractError) as error:
        raise damaged(path, str(error) or repr(error), "the file that hil wrote") from error


def _check_kinds(head: ReelHead) -> None:
    """Raises: ValueError: a value of another kind than hil writes."""
    spec, lengths = head.spec, head.lengths
    ports = [port for port in (spec.inputs, spec.outputs, spec.params) if port is not None]
    good = (
        all(isinstance(p.name, str) and isinstance(p.unit, str) for p in ports)
        and head.slew.by in ("refuses", "ramps", "nobody") and type(head.slew.row_s) in (type(None), int, float)
        and all(p.size is None or (type(p.size) is int and p.size > 0) for p in ports)
        and spec.inputs is not None and spec.outputs is not None
        and isinstance(spec.temporal, bool) and spec.provenance in PROVENANCES and isinstance(head.streaming, bool)
        and isinstance(head.made, dict) and isinstance(head.settings, str) and isinstance(head.sum, str)
        and all(type(count) is int and 0 <= count < MOST_ITEMS for count in (head.shots, head.floats))
        and isinstance(lengths, dict) and lengths.keys() == CHUNKS.keys() - {"index"}
        and all(type(used) is int and 0 <= used < MOST_ITEMS for used in lengths.values())
    )  # fmt: skip
    if not good:
        raise ValueError("a value of another kind")


def settings_digest(text: str, params: bytes = b"") -> bytes:
    """Return a digest of all that decides how a device answers: what it is, how it was set up, what was programmed."""
    return hashlib.sha256(text.encode() + b"\0" + params).digest()[:DIGEST_BYTES]


def key_of(settings: bytes, before: bytes, x: Floats) -> bytes:
    """Return the key of a shot: the digest of the settings, the key before (temporal devices) and the input x."""
    found = xxh3_128(settings + before + repr(x.shape).encode())
    found.update(np.ascontiguousarray(x).data)
    return found.digest()


def digest(values: Floats) -> bytes:
    """Return a digest of the values' bytes."""
    return xxh3_128(np.ascontiguousarray(values).data).digest()


def row(drive: Place, answer: Place, kind: int, flags: int, provenance: int, time_ns: int, digests: Digests) -> bytes:
    """Pack one ROW."""
    (start, shape), (out_start, out_shape) = drive, answer
    none = (0,) * DIMENSIONS
    numbers = (start, len(shape), *(*shape, *none)[:DIMENSIONS])
    numbers += (kind, out_start, len(out_shape), *(*out_shape, *none)[:DIMENSIONS], flags, provenance, time_ns)
    return LINE.pack(*numbers, *digests)


def packed(answer: Floats, spec: Spec) -> tuple[int, NDArray[Any]]:
    """kind, and the flat values to be stored; spikes and whole numbers only if that loses nothing."""
    flat = answer.reshape(-1)
    if spec.outputs.bits is not None:
        kind, dtype = CODES[spec.outputs.bits]
        scale, most = _scales(spec.outputs), (1 << spec.outputs.bits) - 1
        with np.errstate(invalid="ignore"):  # NaN becomes some number, and is seen to be another one
            codes = np.rint(answer.astype(np.float64) * scale).clip(0, most).astype(dtype)
        if _same((codes / scale).astype(np.float32).reshape(-1), flat):
            return kind, codes.reshape(-1).view(np.uint8)
    if spec.temporal:
        fired, against = flat > 0, flat < 0
        if _same(fired.astype(np.float32), flat):
            return BITS, np.packbits(fired)
        if _same(fired.astype(np.float32) - against.astype(np.float32), flat):
            return TERNARY, np.concatenate([np.packbits(fired), np.packbits(against)])
    return FLOAT, flat


def unpacked(kind: int, stored: NDArray[Any], shape: tuple[int, ...], spec: Spec) -> Floats:
    """The inverse of `packed`."""
    count = int(np.prod(shape))
    if kind in (BYTES, WORDS):
        codes = stored.view("|u1" if kind == BYTES else "<u2").reshape(shape)
        return (codes / _scales(spec.outputs)).astype(np.float32)
    return _unpacked(kind, stored, count).reshape(shape)


def _scales(port: Port) -> NDArray[np.float64]:
    """The scale of a port, () or (size,)."""
    return np.asarray(port.scale, np.float64)


def _unpacked(kind: int, stored: NDArray[Any], count: int) -> Floats:
    if kind == FLOAT:
        return stored.astype(np.float32, copy=False)
    plane = -(-count // 8)
    bits = np.unpackbits(stored[:plane], count=count).astype(np.float32)
    return bits if kind == BITS else bits - np.unpackbits(stored[plane:], count=count).astype(np.float32)


def stored_length(kind: int, count: int) -> int:
    """Return how many values of the array `count` values of an answer take, by the kind of their storage."""
    return {FLOAT: count, BITS: -(-count // 8), TERNARY: 2 * -(-count // 8), BYTES: count, WORDS: 2 * count}[kind]


def _same(a: Floats, b: Floats) -> bool:
    """Bit for bit: -0.0 is not 0.0 here."""
    return bool(np.array_equal(a.view(np.uint32), np.ascontiguousarray(b).view(np.uint32)))


def make_arrays(folder: Path) -> None:
    """Empty arrays of a new reel, in the place of whatever nothing counts on."""
    remove_tree(folder)
    for name in CHUNKS:
        (folder / name).mkdir(parents=True)


def row_bytes(name: str) -> int:
    """Return the bytes of one item along the first dimension of an array."""
    return int(np.prod(CHUNKS[name][1:])) * np.dtype(DTYPES[name]).itemsize


def chunk_path(folder: Path, name: str, number: int) -> Path:
    """Path of a chunk of an array, as zarr names it."""
    return folder / name / str(number)


def check_chunks(folder: Path, head: ReelHead) -> None:
    """Check that every chunk that counts is there, in its full size.

    Raises:
        RunError: names the first one that is not.
    """
    for name, shape in CHUNKS.items():
        for place in (folder.parent, folder, folder / name):
            if place.is_symlink() or not place.is_dir():
                raise damaged(place, "a link, or nothing", "a folder")
        size = shape[0] * row_bytes(name)
        for number in range(-(-head.length(name) // shape[0])):
            path = chunk_path(folder, name, number)
            found = path.lstat() if there(path) else None
            if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != size:
                got = "a missing chunk" if found is None else f"{kind_of(found.st_mode)}, {found.st_size} bytes"
                raise damaged(path, got, f"a regular file of {size} bytes")


def read_items(folder: Path, name: str, start: int, stop: int) -> NDArray[Any]:
    """Items start .. stop of an array, from its chunks. Raises: RunError: one is missing, or has another size."""
    size, parts = CHUNKS[name][0], []
    for number in range(start // size, -(-stop // size)):
        path = chunk_path(folder, name, number)
        held = read_bytes(path, size * row_bytes(name))
        if len(held) != size * row_bytes(name):
            raise damaged(path, f"{len(held)} bytes", f"{size * row_bytes(name)} bytes")
        chunk = np.frombuffer(held, DTYPES[name]).reshape(CHUNKS[name])
        parts.append(chunk[max(0, start - number * size) : stop - number * size])
    return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty((0, *CHUNKS[name][1:]), DTYPES[name])])


def read_rows(folder: Path, head: ReelHead) -> NDArray[np.void]:
    """The index (shots,) of ROW. Raises: RunError: it does not have its sum."""
    table = np.ascontiguousarray(read_items(folder, "index", 0, head.shots))
    if len(table) != head.shots or (head.shots and hashlib.sha256(table.data).hexdigest() != head.sum):
        raise damaged(
            folder / "index", "an index that was altered or is cut", f"{head.shots} shots with SHA-256 {head.sum[:12]}…"
        )
    rows: NDArray[np.void] = table.view(ROW).reshape(-1)
    return rows


class Reel:
    """A reel to read. rows: the index. Raises: RunError: damaged, see the module; the tape is never shortened silently."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self._folder = name, folder / name
        self.head = read_head(folder / f"{name}.json")
        check_chunks(self._folder, self.head)
        self.rows = read_rows(self._folder, self.head)
        self._windows: dict[str, tuple[int, NDArray[Any]]] = {}

    def __len__(self) -> int:
        return self.head.shots

    def shape(self, shot: int) -> tuple[int, ...]:
        """Return the shape of the drive of a shot."""
        row = self.rows[shot]
        return tuple(int(n) for n in row["in_shape"][: row["in_ndim"]])

    def key(self, shot: int) -> bytes:
        """Return the key of a shot."""
        return bytes(self.rows[shot]["key"].tobytes())

    def before(self, shot: int) -> bytes:
        """The key that a shot of the device goes on from."""
        first = shot == 0 or not self.head.spec.temporal or self.rows[shot]["flags"] & RESET
        return NO_KEY if first else self.key(shot - 1)

    def drive(self, shot: int) -> Floats:
        """Raises: RunError: its digest is another one."""
        shape = self.shape(shot)
        values = self._values("input", int(self.rows[shot]["in_start"]), int(np.prod(shape))).reshape(shape)
        settings = self.rows[shot]["settings"].tobytes()
        if key_of(settings, self.before(shot), values) != self.key(shot):
            raise damaged(self._folder / "input", f"altered values in shot {shot + 1}", "the values that were recorded")
        return values

    def answer(self, shot: int) -> Floats:
        """Raises: RunError: its digest is another one."""
        row = self.rows[shot]
        shape, kind = tuple(int(n) for n in row["out_shape"][: row["out_ndim"]]), int(row["kind"])
        array = "output" if kind == FLOAT else "spikes"
        stored = self._values(array, int(row["out_start"]), stored_length(kind, int(np.prod(shape))))
        values = unpacked(kind, stored, shape, self.head.spec)
        if digest(values) != row["answer"].tobytes():
            raise damaged(self._folder / array, f"altered values in shot {shot + 1}", "the values that were recorded")
        return values

    def _values(self, name: str, start: int, count: int) -> NDArray[Any]:
        """A copy; shots are mostly read in order, so more than asked is read at once."""
        first, window = self._windows.get(name, (0, np.empty(0)))
        if not first <= start <= start + count <= first + len(window):
            first = start - start % CHUNKS[name][0]
            window = read_items(self._folder, name, first, min(self.head.length(name), max(start + count, first + WINDOW)))
            self._windows[name] = first, window
        return window[start - first : start - first + count].copy()


def damaged(where: Path, got: str, allowed: str) -> RunError:
    """The error of a tape that is not what was recorded."""
    return RunError(
        "a damaged tape", where=str(where), got=got, allowed=allowed, outputs="untouched; nothing was opened",
        todo="restore the file from a copy, or record the run again: hil train --record",
    )  # fmt: skip
