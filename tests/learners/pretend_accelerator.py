"""An accelerator made of the CPU's memory: every storage is marked as on it or not, and an operation that mixes the two fails.

.device, .to(), device = ...    go by the mark; everything is computed on the CPU, so the numbers are those of the CPU
mixed operands                  refused as CUDA refuses them; allowed are copies, CPU indices, and a 0-dimensional CPU
                                operand of a pointwise operation that is not its target
generators                      belong to one of the two, and draw only there; .numpy() of what is marked is refused
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ACCELERATOR = torch.device("cuda:0")
CPU = torch.device("cpu")
COPIES = {"aten::copy_", "aten::_to_copy", "aten::clone"}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
RealGenerator = torch.Generator


class Generator(RealGenerator):
    """A generator of the one or the other; the numbers are the same."""

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        made = super().__new__(cls, device="cpu")
        made.place = torch.device(device)  # type: ignore[attr-defined]
        return made

    @property
    def device(self) -> torch.device:
        place: torch.device = self.place  # type: ignore[attr-defined]
        return place


def tensors(found: object) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from tensors(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from tensors(value)


class Marks:
    """Which storages are on the accelerator. A storage freed cannot be taken for another: the reference keeps its address."""

    def __init__(self) -> None:
        self._marked: set[StorageWeakRef] = set()
        self.target: torch.device | None = None  # of what the call in progress makes without looking at a tensor

    def __contains__(self, tensor: Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            return StorageWeakRef(tensor.untyped_storage()) in self._marked

    def place(self, tensor: Tensor) -> torch.device:
        return ACCELERATOR if tensor in self else CPU

    def mark(self, tensor: Tensor, place: torch.device) -> None:
        with torch._C.DisableTorchFunction():
            reference = StorageWeakRef(tensor.untyped_storage())
        (self._marked.add if place == ACCELERATOR else self._marked.discard)(reference)


class Operations(TorchDispatchMode):
    """Below autograd: refuses a mixture, and marks what comes out."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self.marks, self.seen = marks, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(tensors((args, kwargs)))
        marked = [tensor in self.marks for tensor in given]
        name = func._schema.name
        if any(marked) and not all(marked) and name not in COPIES:
            self._allow(func, name, args, given, marked)
        before = {id(tensor) for tensor in given}
        answer = func(*args, **kwargs)
        fresh = [tensor for tensor in tensors(answer) if id(tensor) not in before and not _views(tensor, given)]
        place = self.marks.target or (ACCELERATOR if any(marked) else CPU)
        for tensor in fresh:
            self.marks.mark(tensor, place)
        self.seen += any(marked)
        return answer

    def _allow(self, func: Any, name: str, args: Sequence[Any], given: list[Tensor], marked: list[bool]) -> None:
        if name == "aten::fill_" and args[1].ndim == 0:
            return
        if name in INDEXED and args[0] in self.marks and (len(args) < 3 or args[2] in self.marks or args[2].ndim == 0):
            return
        strangers = [tensor for tensor, on in zip(given, marked, strict=True) if not on]
        target = given[0] if name.endswith("_") else None
        harmless = torch.Tag.pointwise in func.tags and all(s.ndim == 0 and s is not target for s in strangers)
        if not harmless:
            shapes = ", ".join(f"{tuple(t.shape)} {self.marks.place(t)}" for t in given)
            raise RuntimeError(f"Expected all tensors to be on the same device: {name}({shapes})")


def _views(tensor: Tensor, given: list[Tensor]) -> bool:
    with torch._C.DisableTorchFunction():
        own = tensor.untyped_storage()._cdata
        return any(one.untyped_storage()._cdata == own for one in given)


class Calls(TorchFunctionMode):
    """Above autograd: what Python says and hears about devices."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self.marks = marks

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs, args = dict(kwargs or {}), list(args)
        name = getattr(func, "__name__", "")
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return self.marks.place(args[0])
        if name in ("numpy", "__array__") and args[0] in self.marks:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name in ("cpu", "pin_memory"):
            assert name == "cpu" or args[0] not in self.marks
            return self._to(args[0], CPU, {}) if name == "cpu" else args[0].clone()
        if name == "to":
            return self._to(args[0], *self._asked(args, kwargs))
        on = [tensor for tensor in tensors((args, kwargs)) if tensor in self.marks]
        target = ACCELERATOR if on else None
        if kwargs.get("device") is not None:
            target = torch.device(kwargs["device"])
            kwargs["device"] = CPU
        rng = kwargs.get("generator")
        if rng is not None and rng.device.type != (target or CPU).type:
            raise RuntimeError(f"Expected a '{(target or CPU).type}' device type for generator but found '{rng.device.type}'")
        answer = self._making(target if target == ACCELERATOR else None, lambda: func(*args, **kwargs))
        if "device" in kwargs and target is not None:
            for tensor in tensors(answer):
                self.marks.mark(tensor, target)
        return answer

    def _asked(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[torch.device, dict[str, Any]]:
        """Where, and as what, `tensor.to(...)` is wanted."""
        place, dtype = self.marks.place(args[0]), None
        for value in (*args[1:], kwargs.get("device"), kwargs.get("dtype"), kwargs.get("other")):
            if isinstance(value, Tensor):
                place, dtype = self.marks.place(value), value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, str | torch.device):
                place = torch.device(value)
        return place, {} if dtype is None else {"dtype": dtype}

    def _to(self, tensor: Tensor, place: torch.device, changes: dict[str, Any]) -> Tensor:
        if place == self.marks.place(tensor):
            return tensor.to(**changes) if changes else tensor
        moved: Tensor = self._making(place, lambda: tensor.clone())
        return moved.to(**changes) if changes else moved

    def _making(self, target: torch.device | None, call: Callable[[], Any]) -> Any:
        before, self.marks.target = self.marks.target, target
        try:
            return call()
        finally:
            self.marks.target = before


@contextmanager
def pretending() -> Iterator[Operations]:
    """`cuda:0` is there while the context is open. `seen` counts what was computed on it."""
    with pytest.MonkeyPatch.context() as patch:
        marks = Marks()
        operations = Operations(marks)
        patch.setattr(torch, "Generator", Generator)
        with Calls(marks), operations:
            yield operations
