"""The topics of a federation: one subtree per device and direction, so that an ACL by certificate name is one line.

mekt/1/<federation>/round                     retained    coordinator -> all
mekt/1/<federation>/status                    retained    coordinator -> all
mekt/1/<federation>/rollout                   retained    coordinator -> all
mekt/1/<federation>/up/<device>/<kind>                    device -> coordinator  (presence and fitness are)
mekt/1/<federation>/down/<device>/<kind>                  coordinator -> device
mekt/1/<federation>/enroll/enroll:<device>/<kind>         both ways, while the device has no certificate of its own yet
"""

import re
from dataclasses import dataclass
from typing import Literal

from mekt.schema import NAME_PATTERN

ROOT = "mekt/1"
Direction = Literal["up", "down", "all", "enroll"]
# Before a device's name in the certificate that a token holds. No name has a colon, so it is nobody's own.
APPLICANT = "enroll:"
_KIND = r"(?P<kind>[a-z]{1,32})"
_TO_ALL = re.compile(rf"{ROOT}/(?P<federation>{NAME_PATTERN})/{_KIND}")
_ONE_DEVICE = re.compile(
    rf"{ROOT}/(?P<federation>{NAME_PATTERN})/"
    rf"(?P<direction>up/|down/|enroll/{APPLICANT})(?P<device>{NAME_PATTERN})/{_KIND}"
)
_PREFIXES: dict[Direction, str] = {"up": "up/", "down": "down/", "enroll": f"enroll/{APPLICANT}"}
_DIRECTIONS: dict[str, Direction] = {prefix: direction for direction, prefix in _PREFIXES.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """Where a message of `kind` travels; `device` is empty for what goes to all."""

    federation: str
    direction: Direction
    kind: str
    device: str = ""

    def __str__(self) -> str:
        if self.direction == "all":
            return f"{ROOT}/{self.federation}/{self.kind}"
        return f"{ROOT}/{self.federation}/{_PREFIXES[self.direction]}{self.device}/{self.kind}"


def parse_topic(text: str) -> Topic | None:
    """The topic that `text` names, or None when it is not one of ours."""
    if (found := _TO_ALL.fullmatch(text)) is not None:
        return Topic(federation=found["federation"], direction="all", kind=found["kind"])
    if (found := _ONE_DEVICE.fullmatch(text)) is not None:
        direction = _DIRECTIONS[found["direction"]]
        return Topic(federation=found["federation"], direction=direction, device=found["device"], kind=found["kind"])
    return None


def for_coordinator(federation: str) -> tuple[str, ...]:
    """What the coordinator subscribes to: all that devices send, and what those send that want to become one."""
    return (f"{ROOT}/{federation}/up/+/+", f"{ROOT}/{federation}/enroll/+/request")


def for_device(federation: str, device: str) -> tuple[str, ...]:
    """What a device subscribes to: the round, and what is meant for it alone."""
    return (f"{ROOT}/{federation}/round", f"{ROOT}/{federation}/down/{device}/+")


def for_wearable(federation: str, device: str) -> tuple[str, ...]:
    """What a wearable subscribes to: the release that it is to run, and what is meant for it alone."""
    return (f"{ROOT}/{federation}/rollout", f"{ROOT}/{federation}/down/{device}/+")


def for_applicant(federation: str, device: str) -> tuple[str, ...]:
    """What a device subscribes to that has no certificate of its own yet: the answer to its request."""
    return (f"{ROOT}/{federation}/enroll/{APPLICANT}{device}/answer",)


def for_watcher(federation: str) -> tuple[str, ...]:
    """What somebody who only looks subscribes to: the status and every device's presence."""
    return (f"{ROOT}/{federation}/status", f"{ROOT}/{federation}/up/+/presence")
