"""A wearable in Home Assistant, by MQTT discovery: its activity as a sensor, each alarm as a binary sensor. Pure.

One message, for the whole device (https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, Home
Assistant 2024.11 or later), retained, describes what there is; retained messages say how each stands. That the wearable
is there says its birth message, and that it is gone its last will. An entity that has not been told of for three times
as long as it should have becomes unavailable too: a process may live and do nothing.

"Not sure" is null, which Home Assistant's templates render as None and its sensors take for "unknown".
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.wearable.settings import HomeAssistantSettings
from edge.wearable.telling import Told
from mekt import __version__
from mekt.outgoing import Message

ONLINE, OFFLINE = "online", "offline"
LEAST_EXPIRY_S = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class HomeAssistant:
    """What is said to it by a wearable that knows the classes `labels`, and tells those of `alarms` at once.

    `model` says by which release; `repeat_s` how often the state is told at least.
    """

    settings: HomeAssistantSettings
    labels: Sequence[str]
    alarms: Sequence[str]
    model: str
    repeat_s: float

    @property
    def birth_topic(self) -> str:
        """Under which Home Assistant says that it is there."""
        return f"{self.settings.discovery_prefix}/status"

    @property
    def will(self) -> tuple[str, bytes]:
        """Topic and last words."""
        return f"{self._base}/availability", OFFLINE.encode()

    def birth(self) -> list[Message]:
        """What makes it known, and that it is there."""
        topic = f"{self.settings.discovery_prefix}/device/mekt-{self.settings.id}/config"
        config = json.dumps(self.discovery(), ensure_ascii=False).encode()
        return [
            Message(topic=topic, payload=config, retain=True),
            Message(topic=self.will[0], payload=ONLINE.encode(), retain=True),
        ]

    def state(self, told: Told) -> list[Message]:
        """How the activity and every alarm stand."""
        on = {each["name"]: each for each in told.alarms}
        states = [self._message("activity", told.decision.label, told.about)]
        for name in self.alarms:
            about = {key: value for key, value in on.get(name, {}).items() if key != "name"}
            states.append(self._message(_word(name), "ON" if name in on else "OFF", about))
        return states

    def discovery(self) -> dict[str, Any]:
        """The payload of discovery."""
        key = f"mekt-{self.settings.id}"
        return {
            "device": {
                "identifiers": [key],
                "name": self.settings.name,
                "manufacturer": "Mekt",
                "model": self.model,
                "sw_version": __version__,
            },
            "origin": {"name": "Mekt", "sw_version": __version__},
            "availability_topic": self.will[0],
            "payload_available": ONLINE,
            "payload_not_available": OFFLINE,
            "qos": 1,
            "components": {
                f"{key}-activity": {
                    "platform": "sensor",
                    "name": "Activity",
                    "device_class": "enum",
                    "options": list(self.labels),
                    **self._entity("activity"),
                },
                **{
                    f"{key}-{_word(name)}": {
                        "platform": "binary_sensor",
                        "name": name,
                        "device_class": "safety",
                        "payload_on": "ON",
                        "payload_off": "OFF",
                        **self._entity(_word(name)),
                    }
                    for name in self.alarms
                },
            },
        }

    def _entity(self, word: str) -> dict[str, Any]:
        topic = f"{self._base}/{word}"
        return {
            "unique_id": f"mekt-{self.settings.id}-{word}",
            "state_topic": topic,
            "value_template": "{{ value_json.state }}",
            "json_attributes_topic": topic,
            "json_attributes_template": "{{ value_json.attributes | tojson }}",
            "expire_after": max(LEAST_EXPIRY_S, math.ceil(3 * self.repeat_s)),
        }

    def _message(self, word: str, state: str | None, attributes: dict[str, Any]) -> Message:
        text = json.dumps({"state": state, "attributes": attributes}, ensure_ascii=False)
        return Message(topic=f"{self._base}/{word}", payload=text.encode(), retain=True)

    @property
    def _base(self) -> str:
        return f"mekt-wearable/{self.settings.id}"


def _word(label: str) -> str:
    """An alarm's part of topics and ids: its name, or where that has other letters, one that is as good."""
    word = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    return f"alarm-{word}" if word == label else f"alarm-{word}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
