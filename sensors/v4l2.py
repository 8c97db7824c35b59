"""Cameras as sources, through Video for Linux: webcams and depth cameras.

Every frame becomes a small one at once, while it lies in the driver's memory; no picture is copied or kept, and none is
written to disk. Of a frame that arrives damaged or short nothing is used.
"""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mekt import catalogue
from mekt.errors import MissingPackageError, SensorError
from mekt.modality import Modality, ModalityName
from mekt.schema import Bounds
from sensors.cameras import CODES, DEV, Camera, cameras, chosen
from sensors.frames import Crop, FrameSide, Rate, Shape, check_frames
from sensors.jpeg import decoder
from sensors.miniatures import Miniatures
from sensors.numbering import Numbering
from sensors.pixels import COMPRESSED, PREFERENCE, Content, Format
from sensors.source import Block, Floats, Item, Latency
from sensors.stamps import Stamps
from sensors.videodev import LINUX, TROUBLE, Kernel, VideoDevice

log = logging.getLogger(__name__)

BUFFERS = 4
# At most so many frames a call: a reader sees progress, and what it holds stays small.
MOST_FRAMES = 2 * BUFFERS
# A camera that gives no sound frame for so long, and for so many frames, has failed without saying so.
SILENT_S, SILENT_FRAMES = 10.0, 20
# A driver that says so often in a row that it has a frame, and has none, would keep a core busy.
MOST_FALSE_ALARMS = 100
NUMBERED = re.compile(r"(/dev/)?video\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class V4L2Settings:
    """A camera that speaks Video for Linux, as one modality of small frames.

    `device` is its name, its bus (`usb-0000:00:14.0-2`) or its link in /dev/v4l/by-id; empty is the only one there is.
    `content` says what its pixels are: `depth`, distances of which each step is `scale` of `unit` (0.001 m), 0 where
    nothing was seen; or `grey`, brightness from 0 to 1. A pixel of format `y16` has `bits` (10 for values up to 1023);
    no driver says how many (the kernel's documentation, V4L2_PIX_FMT_Y16).

    `width`, `height` (pixels), `fps` and `format` are what it is asked for; it may give another size or rate. `crop`
    keeps a part of the frame, as shares of its width and height: left, top, right, bottom. What is kept becomes
    `shape`: rows, columns. Stamps are `latency_s` later than the moment that a frame shows: most drivers stamp the end
    of its exposure or transfer.
    """

    kind: Literal["v4l2"] = "v4l2"
    device: Annotated[str, Bounds(longest=256)] = ""
    content: Content
    modality: ModalityName
    shape: Shape
    format: Literal["auto", Format] = "auto"
    width: FrameSide = 640
    height: FrameSide = 480
    fps: Rate = 30.0
    crop: Crop = ()
    unit: Annotated[str, Bounds(longest=16)] | None = None
    scale: Annotated[float, Bounds(above=0, high=1000)] = 0.001
    bits: Annotated[int, Bounds(low=8, high=16)] = 16
    latency_s: Latency = 0.0

    def __post_init__(self) -> None:
        if NUMBERED.fullmatch(self.device):
            raise ValueError(
                f"device: {self.device} may be another camera after a restart; name its link in /dev/v4l/by-id, its"
                " name or its bus"
            )
        if self.format != "auto" and self.format not in PREFERENCE[self.content]:
            raise ValueError(
                f"format: {self.format} holds no {self.content}; expected one of {', '.join(PREFERENCE[self.content])}"
            )
        if self.bits != 16 and (self.content != "grey" or self.format not in ("auto", "y16")):
            raise ValueError("bits: are those of grey pixels of format y16; leave it out, or ask for that format")
        check_frames((self.height, self.width), self.shape, self.crop)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The name of the one modality."""
        return (self.modality,)

    def source(self, base: Path) -> "V4L2Source":
        """The camera as a source.

        Raises:
            MissingPackageError: when it is to give JPEG pictures and Pillow is not installed.
        """
        if self.format == COMPRESSED:
            decoder()
        return V4L2Source(self)


class V4L2Source:
    """Reads a camera; `lost` frames never came, `damaged` ones were not used, both since it was opened."""

    def __init__(
        self,
        settings: V4L2Settings,
        *,
        kernel: Kernel = LINUX,
        dev: Path = DEV,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is looked for before `open`.

        Args:
            settings: what to read.
            kernel: whom to ask.
            dev: where device nodes are.
            clock: seconds of CLOCK_MONOTONIC, by which drivers stamp frames.
        """
        unit = settings.unit if settings.unit is not None else {"depth": "m", "grey": "1"}[settings.content]
        self.modalities: tuple[Modality, ...] = (
            Modality(name=settings.modality, shape=settings.shape, rate_hz=settings.fps, unit=unit),
        )
        self._settings, self._kernel, self._dev, self._clock = settings, kernel, dev, clock
        self._silent_s = max(SILENT_S, SILENT_FRAMES / settings.fps)
        self._stream: _Stream | None = None

    @property
    def lost(self) -> int:
        """Frames that the camera numbered and that never came."""
        return 0 if self._stream is None else self._stream.numbering.lost

    @property
    def damaged(self) -> int:
        """Frames that came damaged, short or not to be decoded."""
        return 0 if self._stream is None else self._stream.damaged

    def open(self) -> None:
        """Find the camera by what stays the same of it, and begin to capture.

        Raises:
            SensorError: when it is not there, may not be used, is in use, or gives nothing that can be read.
        """
        self.close()
        wanted = PREFERENCE[self._settings.content] if self._settings.format == "auto" else (self._settings.format,)
        camera, formats = chosen(cameras(self._kernel, self._dev), self._settings.device, wanted)
        device: VideoDevice | None = None
        try:
            device = VideoDevice(str(camera.path), self._kernel)
            self._stream = self._begun(device, camera, formats)
        except OSError as error:
            raise _failed(camera, error) from error
        finally:
            if self._stream is None and device is not None:
                device.close()

    def read(self, timeout_s: float) -> Sequence[Item] | None:
        """The frames that have come, waiting up to `timeout_s` for one; a camera has no end.

        Raises:
            SensorError: when the camera was never opened, has been unplugged, fails, or gives nothing any more.
        """
        stream = self._stream
        if stream is None:
            raise SensorError("the camera was not opened; open a source before it is read", catalogue.SOURCE_MISUSED)
        try:
            events = stream.device.wait(timeout_s)
            taken_s, images = stream.frames() if events else ([], [])
        except OSError as error:
            raise _failed(stream.camera, error) from error
        now_s = self._clock()
        if now_s - stream.sound_at_s > self._silent_s:
            damaged = f", and {stream.damaged} damaged ones before" if stream.damaged else ""
            raise SensorError(
                f'the camera "{stream.camera.card}" gives no sound frame for {now_s - stream.sound_at_s:.0f}'
                f" s{damaged}; check cable and power, and whether its USB port is fast enough for this size and rate",
                catalogue.SENSOR_UNUSABLE,
            )
        if events and not images and (events & TROUBLE or stream.false_alarms > MOST_FALSE_ALARMS):
            raise _failed(stream.camera, OSError(f"it reports {events:#x} and has no frame"))
        if not images:
            return ()
        block = Block(modality=self._settings.modality, t_s=np.array(taken_s), values=np.stack(images))
        return (block.earlier(self._settings.latency_s),)

    def close(self) -> None:
        """Let the camera go; again without harm."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.device.close()
        if stream.numbering.lost or stream.damaged:
            log.info(
                'the camera "%s" has lost %d frames and damaged %d',
                stream.camera.card,
                stream.numbering.lost,
                stream.damaged,
            )

    def _begun(self, device: VideoDevice, camera: Camera, formats: Sequence[Format]) -> "_Stream":
        """The first of `formats` that the device really gives, streaming.

        Raises:
            OSError: as the kernel does.
            SensorError: when it gives none of them, or none that can be read.
        """
        settings, refused = self._settings, ""
        for name in formats:
            picture = device.ask_for(settings.width, settings.height, CODES[name])
            if picture.code != CODES[name]:
                refused = refused or f"was asked for {name} and gives another format"
                continue
            try:
                miniatures = Miniatures(
                    name,
                    settings.content,
                    (picture.height, picture.width),
                    picture.stride,
                    shape=settings.shape,
                    crop=settings.crop,
                    scale=settings.scale,
                    bits=settings.bits,
                )
            except (ValueError, MissingPackageError) as error:
                refused = refused or f"gives {name}: {error}"
                continue
            rate_hz: float | None = None
            # Many cameras have one rate, and say so by refusing to be asked.
            with contextlib.suppress(OSError):
                rate_hz = device.ask_for_rate(settings.fps)
            device.start(BUFFERS)
            log.info(
                'the camera "%s" (%s) gives %s, %d x %d, %s',
                camera.card,
                camera.path,
                name,
                picture.width,
                picture.height,
                f"{rate_hz:g} frames a second" if rate_hz else "at a rate of its own",
            )
            return _Stream(device, camera, miniatures, 1 / settings.fps, self._clock)
        raise SensorError(
            f'the camera "{camera.card}" {refused}; name another format or size', catalogue.SENSOR_UNUSABLE
        )


class _Stream:
    """What belongs to a camera between `open` and `close`."""

    def __init__(
        self, device: VideoDevice, camera: Camera, miniatures: Miniatures, period_s: float, clock: Callable[[], float]
    ) -> None:
        self.device, self.camera = device, camera
        self.numbering = Numbering()
        self.damaged = self.false_alarms = 0
        self.sound_at_s = clock()
        self._miniatures, self._period_s, self._clock = miniatures, period_s, clock
        self._stamps = Stamps(self.sound_at_s)
        self._kept_s = float("-inf")

    def frames(self) -> tuple[list[float], list[Floats]]:
        """Times and small frames of what is there.

        Raises:
            OSError: as the kernel does.
        """
        taken_s: list[float] = []
        images: list[Floats] = []
        for count in range(MOST_FRAMES):
            filled = self.device.take()
            if filled is None:
                self.false_alarms = 0 if count else self.false_alarms + 1
                break
            arrived_s = self._clock()
            self.numbering.take(filled.sequence)
            stamped = self._stamps.monotonic if filled.monotonic else self._stamps.foreign
            at_s = stamped(filled.stamp_s, arrived_s)
            # Of a camera that is faster than was asked for, frames less than half a period after the one before are
            # passed over. What is left never comes more slowly than asked for.
            if not 0 <= at_s - self._kept_s < self._period_s / 2:
                image = None if filled.damaged else self._miniatures.of(self.device.bytes_of(filled))
                if image is None:
                    self.damaged += 1
                else:
                    self._kept_s, self.sound_at_s = at_s, arrived_s
                    taken_s.append(at_s)
                    images.append(image)
            self.device.give_back(filled.index)
        return taken_s, images


def _failed(camera: Camera, error: OSError) -> SensorError:
    """What a failure of the kernel's means to people."""
    return SensorError(
        f'the camera "{camera.card}" at {camera.bus} ({camera.path}): {error.strerror or error}; plug it in again, end'
        " what else uses it, or give the user that Mekt runs as the right to use it (group video)",
        catalogue.SENSOR_UNUSABLE,
    )
