"""A Basler camera, or another that its GenTL producer reaches, by pypylon: a Camera of drivers/frame/device.py.

    features = { Width = 640, Height = 480, Gain = 0.0 }     features of GenICam, by their names, set in this order

Without a camera, PYLON_CAMEMU=1 in the environment gives an emulated one.
Source: https://github.com/basler/pypylon; names of the features: GenICam Standard Features Naming Convention.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from drivers.packages import needed
from hil.device import Provenance
from hil.errors import ConfigError, HilError, InstrumentError, LinkTimeout, NotAReading, OpenFailed

Format = Literal["Mono8", "Mono10", "Mono12", "Mono16"]
EXPOSURES = ("ExposureTime", "ExposureTimeAbs")  # in us; the second in cameras before the convention had the first


class Camera:
    """A camera.

    Args:
        serial: of it; "": the first one that is found.
        pixels: format of its pixels.
        features: name -> value.
        timeout_s: for a frame.

    Raises:
        ConfigError: the package is not installed, or a feature is refused. OpenFailed: there is no such camera.
    """

    def __init__(
        self, serial: str = "", pixels: Format = "Mono8", features: Mapping[str, Any] = {}, timeout_s: float = 5.0
    ) -> None:
        self._pylon, self._genicam = needed("pypylon.pylon", "genicam"), needed("pypylon.genicam", "genicam")
        self.levels, self._timeout_s = 1 << int(pixels.removeprefix("Mono")), timeout_s
        factory = self._pylon.TlFactory.GetInstance()
        wanted = self._pylon.DeviceInfo()
        if serial:
            wanted.SetSerialNumber(serial)
        with self._mapped("no such camera", OpenFailed):
            self._camera = self._pylon.InstantCamera(factory.CreateFirstDevice(wanted))
            self._camera.Open()
        try:
            for name, value in {"PixelFormat": pixels, **features}.items():
                with self._mapped(f"the camera refuses {name} = {value}", ConfigError):
                    getattr(self._camera, name).SetValue(value)
            with self._mapped("the camera does not say what it is"):
                self._exposure = next(name for name in EXPOSURES if self._genicam.IsWritable(getattr(self._camera, name).Node))
                self.shape = (int(self._camera.Height.Value), int(self._camera.Width.Value))
                kind = self._camera.GetDeviceInfo().GetDeviceClass()
        except BaseException:
            self._camera.Close()
            raise
        self.provenance: Provenance = "twin" if kind == "BaslerCamEmu" else "real"

    @property
    def exposure_s(self) -> float:
        """Exposure of a frame, in s."""
        with self._mapped("the camera does not say its exposure"):
            return float(getattr(self._camera, self._exposure).Value) * 1e-6

    @exposure_s.setter
    def exposure_s(self, exposure_s: float) -> None:
        with self._mapped(f"the camera refuses an exposure of {exposure_s:g} s", ConfigError):
            getattr(self._camera, self._exposure).Value = exposure_s * 1e6

    def read(self) -> NDArray[Any]:
        """Take one frame; the camera begins to expose after this call does."""
        try:
            with self._mapped("no frame"):
                result = self._camera.GrabOne(round(1000 * self._timeout_s))
                if not result.GrabSucceeded():
                    raise NotAReading("a frame was lost", where=self._where, got=result.GetErrorDescription())
                found: NDArray[Any] = np.array(result.Array)
        except InstrumentError as error:
            if isinstance(error.__cause__, self._genicam.TimeoutException):
                raise LinkTimeout("no frame in time", where=self._where, got=f"{self._timeout_s:g} s") from error
            raise
        return found

    def close(self) -> None:
        """Give it back."""
        with contextlib.suppress(self._genicam.GenericException):
            self._camera.Close()

    @property
    def _where(self) -> str:
        return f"camera {self._camera.GetDeviceInfo().GetSerialNumber()}"

    @contextmanager
    def _mapped(self, what: str, kind: type[HilError] = InstrumentError) -> Iterator[None]:
        try:
            yield
        except self._genicam.GenericException as error:
            raise kind(what, where="camera", got=" ".join(str(error).split())[:300]) from error
