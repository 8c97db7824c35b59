"""The cameras of a machine that speak Video for Linux: which there are, and which one a name means.

The number in /dev/video0 is the order in which cameras were found. What stays the same is a camera's name, the socket
that it is plugged into, and the link in /dev/v4l/by-id that udev makes of maker, model and serial number.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mekt import catalogue
from mekt.errors import SensorError
from sensors.found import Found
from sensors.pixels import Content, Format
from sensors.videodev import LINUX, Kernel, VideoDevice, code_of

DEV = Path("/dev")
NUMBERED = re.compile(r"video\d{1,4}")
LINKS = ("v4l/by-id", "v4l/by-path")
CODES: dict[Format, int] = {
    "z16": code_of("Z16 "),
    "y16": code_of("Y16 "),
    "grey": code_of("GREY"),
    "yuyv": code_of("YUYV"),
    "uyvy": code_of("UYVY"),
    "nv12": code_of("NV12"),
    "yu12": code_of("YU12"),
    "rgb24": code_of("RGB3"),
    "bgr24": code_of("BGR3"),
    "mjpeg": code_of("MJPG"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """A device that captures: its node for now, what stays the same of it, and the formats that it offers."""

    path: Path
    card: str
    bus: str
    links: tuple[str, ...]
    formats: tuple[Format, ...]

    def is_called(self, device: str) -> bool:
        """Whether a setting means it; empty means any."""
        return device in ("", self.card, self.bus) or (bool(device) and Path(device).name in self.links)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The cameras in the order of their nodes, and of each device that could not be asked, why."""

    cameras: tuple[Camera, ...]
    problems: tuple[str, ...]


def cameras(kernel: Kernel = LINUX, dev: Path = DEV) -> Seen:
    """What there is below `dev`."""
    links: dict[Path, list[str]] = {}
    for link in (each for folder in LINKS for each in sorted((dev / folder).glob("*"))):
        links.setdefault(link.resolve(), []).append(link.name)
    there, problems = [], []
    nodes = [each for each in dev.glob("video*") if NUMBERED.fullmatch(each.name)]
    for path in sorted(nodes, key=lambda each: int(each.name[len("video") :])):
        try:
            device = VideoDevice(str(path), kernel)
            try:
                able = device.capability()
                codes = set(device.formats()) if able.captures else set()
            finally:
                device.close()
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
            continue
        formats: tuple[Format, ...] = tuple(name for name, code in CODES.items() if code in codes)
        if formats:
            named = tuple(links.get(path.resolve(), ()))
            there.append(Camera(path=path, card=able.card, bus=able.bus, links=named, formats=formats))
    return Seen(cameras=tuple(there), problems=tuple(problems))


def chosen(seen: Seen, device: str, wanted: Sequence[Format]) -> tuple[Camera, tuple[Format, ...]]:
    """The camera that is called `device`, and those of the `wanted` formats that it offers, in their order.

    A camera with several nodes, one for each of its eyes, is meant at the one with the earliest of the formats.

    Raises:
        SensorError: when there is none, or several cameras could be meant.
    """
    called = [each for each in seen.cameras if each.is_called(device)]
    ranks = [next((rank for rank, name in enumerate(wanted) if name in each.formats), None) for each in called]
    offered = [(rank, each) for rank, each in zip(ranks, called, strict=True) if rank is not None]
    if not called:
        there = ", ".join(f'"{each.card}" at {each.bus}' for each in seen.cameras) or "none"
        unread = f"; not to be opened are {', '.join(seen.problems)}" if seen.problems else ""
        what = f'no camera is called "{device}"' if device else "no camera is there"
        raise SensorError(
            f"{what}; there is {there}{unread}; plug it in or name another, and the user that Mekt runs as belongs to"
            " the group video",
            catalogue.SENSOR_UNUSABLE,
        )
    if not offered:
        formats = ", ".join(sorted({name for each in called for name in each.formats}))
        raise SensorError(
            f'the camera "{called[0].card}" gives {formats}, and none of {", ".join(wanted)}; name a format that it'
            " gives, or another camera",
            catalogue.SENSOR_UNUSABLE,
        )
    first = min(rank for rank, _ in offered)
    best = [each for rank, each in offered if rank == first]
    if len({each.bus for each in best}) > 1:
        names = ", ".join(f'"{each.links[0] if each.links else each.bus}"' for each in best)
        raise SensorError(
            f"device: {len(best)} cameras could be meant; name one of them: {names}", catalogue.SENSOR_UNUSABLE
        )
    return best[0], tuple(name for name in wanted if name in best[0].formats)


def found(kernel: Kernel = LINUX, dev: Path = DEV) -> tuple[Found, ...]:
    """Every camera with the table that opens it, under a name that it keeps."""
    seen = cameras(kernel, dev).cameras
    return tuple(_found(each, [other for other in seen if other is not each]) for each in seen)


def _found(camera: Camera, others: Sequence[Camera]) -> Found:
    content: Content = "depth" if "z16" in camera.formats else "grey"
    # The link is of this node alone; card and bus are those of all of a camera's nodes.
    name = (
        camera.links[0] if camera.links else camera.bus if any(camera.card == o.card for o in others) else camera.card
    )
    lines = (
        "[[sensors]]",
        'kind = "v4l2"',
        f"device = {json.dumps(name)}",
        f'content = "{content}"',
        f'modality = "{content}"',
        "shape = [24, 32]",
    )
    text = f"camera {camera.card} at {camera.bus}: {', '.join(camera.formats)}"
    return Found(kind="v4l2", name=name, text=text, toml="\n".join(lines) + "\n")
