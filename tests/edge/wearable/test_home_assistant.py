"""A wearable in Home Assistant: what is said to it, to the key; and at a real broker, a process that lives and dies."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.wearable.decisions import Alarm, Decision
from edge.wearable.home_assistant import HomeAssistant
from edge.wearable.settings import HomeAssistantSettings
from edge.wearable.telling import Told
from mekt import __version__
from mekt.broker import Broker
from tests.export.small import ACC, GYRO, LABELS, parts_of
from tests.mekt.links import needs_mosquitto
from tests.processes import PATIENCE_S, until

ROOT = Path(__file__).parents[3]
# What the documentation of Home Assistant knows (home-assistant.io, MQTT, sensor.mqtt, binary_sensor.mqtt).
SHARED = {
    *("availability", "availability_mode", "availability_template", "availability_topic", "payload_available"),
    *("payload_not_available", "state_topic", "command_topic", "qos", "encoding"),
}
REQUIRED = {"device", "origin", "components"}
DEVICE = {
    *("identifiers", "connections", "manufacturer", "model", "model_id", "name", "hw_version", "serial_number"),
    *("sw_version", "via_device", "suggested_area", "configuration_url"),
}
ENTITY = {
    *SHARED,
    *("platform", "unique_id", "name", "device_class", "expire_after", "force_update", "icon", "entity_category"),
    *("json_attributes_topic", "json_attributes_template", "value_template", "object_id", "enabled_by_default"),
}
PLATFORMS = {
    "sensor": {*ENTITY, "options", "state_class", "unit_of_measurement", "suggested_display_precision"},
    "binary_sensor": {*ENTITY, "payload_on", "payload_off", "off_delay"},
}


class Home:
    """What stands for Home Assistant: discovers, subscribes, renders, as its documentation says. It never publishes."""

    def __init__(self, port: int) -> None:
        self.config: dict[str, Any] = {}
        self.announced = 0
        self.latest: dict[str, tuple[bytes, bool]] = {}
        self.history: list[tuple[str, bytes]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="home")
        self.client.on_message = self._heard
        ready = threading.Event()
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_connect = lambda client, *_: client.subscribe([("homeassistant/#", 1), ("mekt-wearable/#", 1)])
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert ready.wait(PATIENCE_S)

    def _heard(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        payload = bytes(message.payload)
        self.latest[message.topic] = payload, message.retain
        self.history.append((message.topic, payload))
        if re.fullmatch(r"homeassistant/device/(?:[\w-]+/)?[\w-]+/config", message.topic):
            config = json.loads(payload)
            check(config)
            self.config = config
            self.announced += 1

    def available(self) -> bool:
        payload, _ = self.latest.get(self.config.get("availability_topic", ""), (b"", False))
        return payload.decode() == str(self.config.get("payload_available", "online"))

    def entity(self, suffix: str) -> dict[str, Any]:
        [found] = [each for each in self.config["components"].values() if each["unique_id"].endswith(suffix)]
        return dict(found)

    def state(self, suffix: str) -> str | None:
        """As its frontend shows it; None while nothing was said."""
        entity = self.entity(suffix)
        if entity["state_topic"] not in self.latest:
            return None
        rendered = render(entity["value_template"], self.latest[entity["state_topic"]][0])
        if rendered == "None":
            return "unknown"
        if entity["platform"] == "sensor":
            assert rendered in entity["options"], "an option that is not listed is ignored"
            return rendered
        return {entity["payload_on"]: "on", entity["payload_off"]: "off"}[rendered]

    def attributes(self, suffix: str) -> dict[str, Any]:
        entity = self.entity(suffix)
        found = json.loads(render(entity["json_attributes_template"], self.latest[entity["json_attributes_topic"]][0]))
        assert isinstance(found, dict), "attributes are a dictionary, or ignored"
        return found

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def render(template: str, payload: bytes) -> str:
    """What its templates make of a payload, as far as they are used here: a null is rendered as None."""
    found = re.fullmatch(r"\{\{ value_json\.(\w+)( \| tojson)? \}\}", template)
    assert found, template
    value = json.loads(payload)[found[1]]
    return json.dumps(value) if found[2] else str(value)


def check(config: dict[str, Any]) -> None:
    """Whether this is a payload of device discovery: what is required is there, and nothing that is not known."""
    assert REQUIRED <= set(config) <= REQUIRED | SHARED
    assert set(config["device"]) <= DEVICE
    assert config["device"].get("identifiers") or config["device"].get("connections")
    assert {"name"} <= set(config["origin"]) <= {"name", "sw_version", "support_url"}
    assert not {"availability", "availability_topic"} <= set(config), "one or the other"
    ids = [each["unique_id"] for each in config["components"].values()]
    assert len(set(ids)) == len(ids)
    for each in config["components"].values():
        assert set(each) <= PLATFORMS[each["platform"]]
        assert each["state_topic"]
        if each["platform"] == "sensor" and "options" in each:
            assert each["device_class"] == "enum"
            assert not {"state_class", "unit_of_measurement"} & set(each)
            assert len(set(each["options"])) == len(each["options"]) > 0
        assert each.get("device_class") in ("enum", "safety")


ANNA = HomeAssistant(
    settings=HomeAssistantSettings(id="anna-7", name="Anna's watch"),
    labels=("sit", "walk", "fall"),
    alarms=("fall",),
    model="ward-3, round 7",
    repeat_s=60,
)


def test_the_discovery_payload_is_this_to_the_key() -> None:
    config, online = ANNA.birth()
    assert (config.topic, config.retain) == ("homeassistant/device/mekt-anna-7/config", True)
    assert json.loads(config.payload) == {
        "device": {
            "identifiers": ["mekt-anna-7"],
            "name": "Anna's watch",
            "manufacturer": "Mekt",
            "model": "ward-3, round 7",
            "sw_version": __version__,
        },
        "origin": {"name": "Mekt", "sw_version": __version__},
        "availability_topic": "mekt-wearable/anna-7/availability",
        "payload_available": "online",
        "payload_not_available": "offline",
        "qos": 1,
        "components": {
            "mekt-anna-7-activity": {
                "platform": "sensor",
                "unique_id": "mekt-anna-7-activity",
                "name": "Activity",
                "device_class": "enum",
                "options": ["sit", "walk", "fall"],
                "state_topic": "mekt-wearable/anna-7/activity",
                "value_template": "{{ value_json.state }}",
                "json_attributes_topic": "mekt-wearable/anna-7/activity",
                "json_attributes_template": "{{ value_json.attributes | tojson }}",
                "expire_after": 180,
            },
            "mekt-anna-7-alarm-fall": {
                "platform": "binary_sensor",
                "unique_id": "mekt-anna-7-alarm-fall",
                "name": "fall",
                "device_class": "safety",
                "payload_on": "ON",
                "payload_off": "OFF",
                "state_topic": "mekt-wearable/anna-7/alarm-fall",
                "value_template": "{{ value_json.state }}",
                "json_attributes_topic": "mekt-wearable/anna-7/alarm-fall",
                "json_attributes_template": "{{ value_json.attributes | tojson }}",
                "expire_after": 180,
            },
        },
    }
    check(json.loads(config.payload))
    assert (online.topic, online.payload, online.retain) == ("mekt-wearable/anna-7/availability", b"online", True)
    assert ANNA.will == ("mekt-wearable/anna-7/availability", b"offline")
    assert ANNA.birth_topic == "homeassistant/status"


def told(label: str | None, *alarms: Alarm) -> Told:
    decision = Decision(at_s=50.0, label=label, probability=0.87654321, since_s=40.0, alarms=alarms)
    return Told(decision=decision, wall_s=1_790_000_000.5, news=True, modalities=("acc",), latency_ms=0.4)


def test_states_are_these_to_the_key() -> None:
    fall = Alarm(label="fall", probability=0.97, since_s=48.0)
    activity, alarm = ANNA.state(told("walk", fall))
    assert json.loads(activity.payload) == {
        "state": "walk",
        "attributes": {
            "probability": 0.8765,
            "since": "2026-09-21T14:13:10.500Z",
            "modalities": ["acc"],
            "latency_ms": 0.4,
        },
    }
    assert json.loads(alarm.payload) == {
        "state": "ON",
        "attributes": {"probability": 0.97, "since": "2026-09-21T14:13:18.500Z"},
    }
    assert activity.retain and alarm.retain
    activity, alarm = ANNA.state(told(None))
    assert json.loads(activity.payload)["state"] is None
    assert json.loads(alarm.payload) == {"state": "OFF", "attributes": {}}


def test_labels_of_any_letters_have_topics_and_ids_of_their_own() -> None:
    names = ("fall", "Fall", "fall!", "Стук", "+/#", "{{ x }}")
    home = HomeAssistant(settings=ANNA.settings, labels=names, alarms=names, model="ward-3", repeat_s=0)
    config = json.loads(home.birth()[0].payload)
    check(config)
    topics = [each.topic for each in home.state(told(None))]
    assert len(set(topics)) == len(topics) == 7
    assert all(re.fullmatch(r"mekt-wearable/anna-7/[a-z0-9-]+", each) for each in topics)
    assert all(each["expire_after"] == 30 for each in config["components"].values())


SETTINGS = """
repeat_s = 2
stdout = false
[[sensors]]
kind = "simulator"
subject = 1
modalities = ["acc", "gyro"]
duration_s = 600
[release]
file = "ward-3.zip"
[decide]
enter = 0.34
leave = 0.3
least_s = 0.5
[decide.alarms]
walk = {{ threshold = 0.34, hold_s = 1 }}
[broker]
port = {port}
[publish]
topic = "ward/anna"
retain = true
[home_assistant]
id = "anna"
name = "Anna's watch"
"""


@pytest.fixture
def wearer(tmp_path: Path) -> Iterator["Wearer"]:
    parts_of(ACC, GYRO).write(tmp_path / "ward-3.zip")
    with Broker(tmp_path / "broker", kind="mosquitto") as broker:
        (tmp_path / "wearable.toml").write_text(SETTINGS.format(port=broker.port))
        wearer = Wearer(tmp_path, broker)
        wearer.start()
        try:
            yield wearer
        finally:
            wearer.process.kill()
            wearer.process.wait()


class Wearer:
    """The process of a wearable."""

    process: "subprocess.Popen[bytes]"

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder, self.broker = folder, broker

    def start(self) -> None:
        command = [sys.executable, "-m", "mekt", "infer", "--config", str(self.folder / "wearable.toml")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what it does, while it lives."""
        until(lambda: condition() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@needs_mosquitto
def test_home_assistant_sees_a_wearable_come_speak_die_return_and_leave(wearer: Wearer) -> None:
    home = Home(wearer.broker.port)
    wearer.until(lambda: home.available() and home.state("-activity") is not None)
    wearer.until(lambda: home.state("-activity") in LABELS)
    assert home.entity("-activity")["options"] == list(LABELS)
    assert home.state("-alarm-walk") in ("on", "off")
    assert set(home.attributes("-activity")) == {"probability", "since", "modalities", "latency_ms"}
    wearer.until(lambda: home.state("-alarm-walk") == "on")
    assert set(home.attributes("-alarm-walk")) == {"probability", "since"}

    # Home Assistant has been started anew, and says so at QoS 0, not retained, as it does unless told otherwise.
    before = home.announced
    home.client.publish("homeassistant/status", "online", qos=0)
    wearer.until(lambda: home.announced > before)
    home.client.publish("homeassistant/status", "offline", qos=0)

    # Whoever comes later finds it all retained.
    late = Home(wearer.broker.port)
    wearer.until(lambda: late.available() and late.state("-activity") is not None)
    assert late.config == home.config
    assert all(retained for topic, (_, retained) in late.latest.items() if topic.endswith(("config", "availability")))
    late.close()

    wearer.process.kill()
    wearer.process.wait()
    until(lambda: not home.available())

    wearer.start()
    wearer.until(home.available)
    wearer.process.send_signal(signal.SIGTERM)
    assert wearer.process.wait(PATIENCE_S) == 0
    until(lambda: not home.available())
    assert "Traceback" not in wearer.log
    home.close()


@needs_mosquitto
def test_a_broker_that_was_away_is_told_all_again(wearer: Wearer) -> None:
    home = Home(wearer.broker.port)
    wearer.until(home.available)
    home.close()
    wearer.broker.kill()
    wearer.broker.start()
    # It has forgotten everything.
    home = Home(wearer.broker.port)
    wearer.until(lambda: home.available() and home.state("-activity") is not None)
    home.close()
