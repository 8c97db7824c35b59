"""The topics of a federation: one subtree per device and direction, so that an ACL by certificate name is one line.

mekt/1/<federation>/round                     retained    coordinator -> all
mekt/1/<federation>/status                    retained    coordinator -> all
mekt/1/<federation>/up/<device>/<kind>                    device -> coordinator  (presence is retained)
mekt/1/<federation>/down/<device>/<kind>                  coordinator -> device
"""

import re
from dataclasses import dataclass
from typing import Literal

from mekt.schema import NAME_PATTERN

ROOT = "mekt/1"
Direction = Literal["up", "down", "all"]
_KIND = r"(?P<kind>[a-z]{1,32})"
_TO_ALL = re.compile(rf"{ROOT}/(?P<federation>{NAME_PATTERN})/{_KIND}")
_ONE_DEVICE = re.compile(
    rf"{ROOT}/(?P<federation>{NAME_PATTERN})/(?P<direction>up|down)/(?P<device>{NAME_PATTERN})/{_KIND}"
)


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
        return f"{ROOT}/{self.federation}/{self.direction}/{self.device}/{self.kind}"


def parse_topic(text: str) -> Topic | None:
    """The topic that `text` names, or None when it is not one of ours."""
    if (found := _TO_ALL.fullmatch(text)) is not None:
        return Topic(federation=found["federation"], direction="all", kind=found["kind"])
    if (found := _ONE_DEVICE.fullmatch(text)) is not None:
        direction: Direction = "up" if found["direction"] == "up" else "down"
        return Topic(federation=found["federation"], direction=direction, device=found["device"], kind=found["kind"])
    return None


def for_coordinator(federation: str) -> tuple[str, ...]:
    """What the coordinator subscribes to: all that devices send."""
    return (f"{ROOT}/{federation}/up/+/+",)


def for_device(federation: str, device: str) -> tuple[str, ...]:
    """What a device subscribes to: the round, and what is meant for it alone."""
    return (f"{ROOT}/{federation}/round", f"{ROOT}/{federation}/down/{device}/+")


def for_watcher(federation: str) -> tuple[str, ...]:
    """What somebody who only looks subscribes to: the status and every device's presence."""
    return (f"{ROOT}/{federation}/status", f"{ROOT}/{federation}/up/+/presence")
