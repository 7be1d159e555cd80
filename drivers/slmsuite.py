"""The SLMs and cameras of slmsuite, as Display and Camera of drivers/frame/device.py.

    of = "slmsuite.hardware.slms.holoeye:Holoeye"       settings = { ... }      what its class takes
    of = "slmsuite.hardware.cameras.thorlabs:ThorCam"

Images are levels, shown as they are: neither the phase correction nor the gamma of slmsuite is applied.
Source: https://slmsuite.readthedocs.io
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.packages import needed
from hil.device import Provenance
from hil.errors import ConfigError, NotAReading

EXTRA = "slmsuite"


class SLM:
    """An SLM.

    Args:
        of: "module:Class" of slmsuite, or of your own subclass.
        settings: keyword arguments of that.

    Raises:
        ConfigError: the package is not installed, or has no such class. What opening it raises.
    """

    def __init__(self, of: str, settings: Mapping[str, Any] = {}) -> None:
        self.provenance: Provenance
        self.inner, self.provenance = _opened(of, settings)
        self.shape: tuple[int, int] = tuple(int(n) for n in self.inner.shape)  # type: ignore[assignment]
        self.levels = int(self.inner.bitresolution)
        self._closed = False

    def write(self, image: NDArray[Any]) -> None:
        """Show levels; return after the settling time that slmsuite knows."""
        self.inner.set_phase(np.asarray(image, self.inner.dtype), settle=True)

    def close(self) -> None:
        """Give it back."""
        if not self._closed:
            self._closed = True
            self.inner.close()


class Camera:
    """A camera.

    Args:
        of: "module:Class" of slmsuite, or of your own subclass.
        settings: keyword arguments of that.
        display: the SLM that it looks at; given to a class that takes `slm`, as the simulated camera does.
        timeout_s: for a frame.

    Raises:
        ConfigError: the package is not installed, or has no such class. What opening it raises.
    """

    def __init__(self, of: str, settings: Mapping[str, Any] = {}, display: SLM | None = None, timeout_s: float = 1.0) -> None:
        self.provenance: Provenance
        slm = {} if display is None else {"slm": getattr(display, "inner", None)}
        self.inner, self.provenance = _opened(of, settings, slm)
        self.shape: tuple[int, int] = tuple(int(n) for n in self.inner.shape)  # type: ignore[assignment]
        self.levels = int(self.inner.bitresolution)
        self._timeout_s, self._closed = timeout_s, False

    @property
    def exposure_s(self) -> float:
        """Exposure of a frame, in s."""
        return float(self.inner.exposure_s)

    @exposure_s.setter
    def exposure_s(self, exposure_s: float) -> None:
        self.inner.exposure_s = exposure_s

    def read(self) -> NDArray[Any]:
        """Take a frame; those that were taken before it are thrown away."""
        self.inner.flush()
        found = np.asarray(self.inner.get_image(timeout_s=self._timeout_s, averaging=False, hdr=False))
        if found.dtype.kind not in "ui":
            raise NotAReading("a frame that is not of whole numbers", where="camera", got=str(found.dtype), allowed="counts")
        return found.astype(np.uint8 if self.levels <= 256 else np.uint16, copy=False)

    def close(self) -> None:
        """Give it back."""
        if not self._closed:
            self._closed = True
            self.inner.close()


def _opened(of: str, settings: Mapping[str, Any], besides: Mapping[str, Any] = {}) -> tuple[Any, Provenance]:
    """The object of slmsuite that `of` names, and who answers. `besides`: given to it if it takes them."""
    needed("slmsuite", EXTRA)
    module, _, name = of.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            "no such class",
            where="of",
            got=f"{of}: {error}",
            allowed='"slmsuite.hardware.slms.…:Class", its own library installed',
        ) from error
    takes = inspect.signature(made).parameters
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    provenance: Provenance = "twin" if made.__module__.endswith(".simulated") else "real"
    return made(**{key: value for key, value in besides.items() if key in takes}, **given), provenance
