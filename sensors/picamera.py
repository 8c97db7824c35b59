"""Cameras on the ribbon cable of a Raspberry Pi as sources, through libcamera and its Python side, picamera2.

Modern Raspberry Pi systems have no picture for Video for Linux to take from such a camera: its sensor's data has to go
through libcamera first. Of the main stream that libcamera makes, in YUV 4:2:0, the luma is taken, and becomes a small
frame at once. picamera2 reads the camera on a thread of its own.

After picamera2's source (picamera2.py, request.py, job.py of 2025). Its configuration for previews is taken, not that
for videos: it has the luma in its whole range (sYCC), and the least noise reduction.
"""

import contextlib
import importlib.util
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from mekt import catalogue
from mekt.errors import MissingPackageError, SensorError
from mekt.modality import Modality, ModalityName
from mekt.schema import Bounds
from sensors.found import Found
from sensors.frames import Crop, FrameSide, Rate, Shape, check_frames
from sensors.miniatures import Miniatures
from sensors.source import Block, Item, Latency
from sensors.stamps import Stamps

log = logging.getLogger(__name__)

REMEDY = (
    "sudo apt install python3-picamera2, in an environment made with --system-site-packages; where libcamera is there, "
    'in the folder of Mekt: pip install -c constraints.txt -e ".[picamera2]"'
)
STREAM = "main"
BUFFERS = 4
# A camera that gives no sound frame for so long, and for so many frames, has failed without saying so.
SILENT_S, SILENT_FRAMES = 10.0, 20
# libcamera sees USB cameras as well; those are read through Video for Linux.
USB = "/usb"


@dataclass(frozen=True, kw_only=True, slots=True)
class PicameraSettings:
    """A camera on a Raspberry Pi's ribbon cable, as one modality of small frames: brightness from 0 to 1.

    `device` is its model (`imx708`) or, where two are alike, its place as libcamera tells it
    (`/base/axi/pcie@120000/rp1/i2c@80000/imx708@1a`); empty is the only one there is. `width`, `height` (pixels) and
    `fps` are what it is asked for. `crop` keeps a part of the frame, as shares of its width and height: left, top,
    right, bottom. What is kept becomes `shape`: rows, columns. Stamps are `latency_s` later than the moment that
    a frame shows.
    """

    kind: Literal["picamera"] = "picamera"
    device: Annotated[str, Bounds(longest=256)] = ""
    modality: ModalityName
    shape: Shape
    width: FrameSide = 640
    height: FrameSide = 480
    fps: Rate = 30.0
    crop: Crop = ()
    unit: Annotated[str, Bounds(longest=16)] = "1"
    latency_s: Latency = 0.0

    def __post_init__(self) -> None:
        if self.width % 2 or self.height % 2:
            raise ValueError(f"width: {self.width} x {self.height} is odd; expected even numbers, as colours need them")
        check_frames((self.height, self.width), self.shape, self.crop)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The name of the one modality."""
        return (self.modality,)

    def source(self, base: Path) -> "PicameraSource":
        """The camera as a source.

        Raises:
            MissingPackageError: when picamera2 is not installed.
        """
        return PicameraSource(self, _picamera2())


class PicameraSource:
    """Reads a camera; `damaged` frames were not used since it was opened."""

    def __init__(
        self,
        settings: PicameraSettings,
        library: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
        slept: Callable[[], float] | None = None,
    ) -> None:
        """Nothing is looked for before `open`.

        Args:
            settings: what to read.
            library: the class `Picamera2`.
            clock: seconds of CLOCK_MONOTONIC.
            slept: how many seconds the machine has slept since it was started; the kernel's word if not given.
        """
        self.modalities: tuple[Modality, ...] = (
            Modality(name=settings.modality, shape=settings.shape, rate_hz=settings.fps, unit=settings.unit),
        )
        self._settings, self._library, self._clock = settings, library, clock
        self._slept = slept or _slept_s
        self._silent_s = max(SILENT_S, SILENT_FRAMES / settings.fps)
        self.damaged = 0
        self._camera: Any = None
        self._job: Any = None
        self._model = ""
        self._miniatures: Miniatures | None = None
        self._stamps = Stamps(0.0)
        self._sound_at_s = 0.0

    def open(self) -> None:
        """Find the camera by what stays the same of it, and begin to capture.

        Raises:
            SensorError: when it is not there, is in use, or gives nothing that can be read.
        """
        self.close()
        number, self._model = self._chosen()
        settings, self.damaged = self._settings, 0
        frame_us = round(1e6 / settings.fps)
        try:
            self._camera = self._library(number)
            plan = self._camera.create_preview_configuration(
                main={"size": (settings.width, settings.height), "format": "YUV420"},
                raw=None,
                buffer_count=BUFFERS,
                controls={"FrameDurationLimits": (frame_us, frame_us)},
                display=None,
                encode=None,
            )
            self._camera.configure(plan)
            given = self._camera.stream_configuration(STREAM)
            if given["format"] != "YUV420":
                raise ValueError(f"it gives {given['format']}")
            width, height = given["size"]
            self._miniatures = Miniatures(
                "yu12",
                "grey",
                (int(height), int(width)),
                int(given["stride"]),
                shape=settings.shape,
                crop=settings.crop,
                scale=1.0,
            )
            self._camera.start()
        except Exception as error:
            # The library passes on whatever libcamera and the kernel raise.
            self.close()
            raise self._failed(error) from error
        self._sound_at_s = self._clock()
        self._stamps = Stamps(self._sound_at_s)
        log.info('the camera "%s" gives %d x %d', self._model, width, height)

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """The next frame, waiting up to `timeout_s` for it; a camera has no end.

        Raises:
            SensorError: when the camera was never opened, fails, or gives nothing any more.
        """
        if self._camera is None or self._miniatures is None:
            raise SensorError("the camera was not opened; open a source before it is read", catalogue.SOURCE_MISUSED)
        try:
            # A frame that was asked for and did not come in time is the one that the next call waits for.
            self._job = self._job or self._camera.capture_request(wait=False)
            request = self._camera.wait(self._job, timeout=max(0.0, timeout_s))
        except TimeoutError:
            self._check_silence()
            return ()
        except Exception as error:
            raise self._failed(error) from error
        self._job = None
        arrived_s = self._clock()
        try:
            try:
                stamp_ns = request.get_metadata().get("SensorTimestamp")
                data = request.make_buffer(STREAM)
            finally:
                # A request that is kept is a buffer that the camera lacks.
                request.release()
        except Exception as error:
            raise self._failed(error) from error
        image = self._miniatures.of(np.ascontiguousarray(data, dtype=np.uint8).data)
        if image is None:
            self.damaged += 1
            self._check_silence()
            return ()
        self._sound_at_s = at_s = arrived_s
        if isinstance(stamp_ns, int):
            at_s = self._stamps.boottime(stamp_ns / 1e9, arrived_s, self._slept())
        block = Block(modality=self._settings.modality, t_s=np.array([at_s]), values=image[None])
        return (block.earlier(self._settings.latency_s),)

    def close(self) -> None:
        """Let the camera go; again without harm."""
        camera, self._camera, job, self._job = self._camera, None, self._job, None
        if camera is None:
            return
        if job is not None:
            # Stopping waits for its turn behind what was asked for before, which a silent camera never gives.
            with contextlib.suppress(Exception):
                camera.cancel_all_and_flush()
        with contextlib.suppress(Exception):
            camera.close()

    def _chosen(self) -> tuple[int, str]:
        """The camera's place in the library's list, and its model.

        Raises:
            SensorError: when there is none, or several could be meant.
        """
        device = self._settings.device
        there = _cameras(self._library)
        called = [(number, model) for number, model, place in there if device in ("", model, place)]
        if len(called) == 1:
            return called[0]
        names = ", ".join(f'"{model}" at {place}' for _, model, place in there) or "none"
        if called:
            raise SensorError(
                f"device: {len(called)} cameras could be meant; name one by model or place: {names}",
                catalogue.SENSOR_UNUSABLE,
            )
        what = f'no camera is called "{device}"' if device else "no camera is there"
        raise SensorError(
            f"{what}; there is {names}; switch the board off, check the ribbon cable at both ends, and the camera's"
            " line in config.txt",
            catalogue.SENSOR_UNUSABLE,
        )

    def _check_silence(self) -> None:
        silent_s = self._clock() - self._sound_at_s
        if silent_s > self._silent_s:
            raise self._failed(TimeoutError(f"gives no sound frame for {silent_s:.0f} s"))

    def _failed(self, error: Exception) -> SensorError:
        causes = f" ({error.__cause__})" if error.__cause__ is not None else ""
        return SensorError(
            f'the camera "{self._model}": {str(error) or type(error).__name__}{causes}; end what else uses it, and'
            " check the ribbon cable at both ends while the board is off",
            catalogue.SENSOR_UNUSABLE,
        )


def found() -> tuple[Found, ...]:
    """Every camera that libcamera sees on a ribbon cable; none where picamera2 is not installed."""
    if importlib.util.find_spec("picamera2") is None:
        return ()
    try:
        there = _cameras(_picamera2())
    except (MissingPackageError, SensorError):
        return ()
    models = [model for _, model, _ in there]
    return tuple(
        Found(
            kind="picamera",
            name=model if models.count(model) == 1 else place,
            text=f"camera {model} at {place}",
            toml="\n".join(
                (
                    "[[sensors]]",
                    'kind = "picamera"',
                    f"device = {json.dumps(model if models.count(model) == 1 else place)}",
                    'modality = "grey"',
                    "shape = [24, 32]",
                )
            )
            + "\n",
        )
        for _, model, place in there
    )


def _cameras(library: Any) -> list[tuple[int, str, str]]:
    """Number in the library's list, model and place of every camera on a ribbon cable.

    Raises:
        SensorError: when libcamera fails.
    """
    try:
        told = [
            (number, str(each.get("Model", "")), str(each["Id"]))
            for number, each in enumerate(library.global_camera_info())
        ]
    except Exception as error:
        raise SensorError(
            f"libcamera does not say which cameras there are: {error}; restart the board", catalogue.SENSOR_UNUSABLE
        ) from error
    return [each for each in told if USB not in each[2]]


def _slept_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def _picamera2() -> Any:
    """The class by which a camera is used.

    Raises:
        MissingPackageError: when it is not installed, or libcamera is not.
    """
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        raise MissingPackageError(
            f"a camera on a ribbon cable needs picamera2, which is not installed ({error}); {REMEDY}",
            catalogue.PACKAGE_MISSING,
        ) from error
    except Exception as error:
        # Parts of it that were built for another numpy than the one in this environment raise a ValueError.
        raise MissingPackageError(
            f"picamera2 is installed and does not work here ({error}); {REMEDY}", catalogue.PACKAGE_UNUSABLE
        ) from error
    return Picamera2
