"""What a wearable says over MQTT when the broker comes late."""

import queue
from pathlib import Path
from typing import Any

import pytest

from edge.wearable.broadcast import Broadcast
from edge.wearable.decisions import Alarm, Decision
from edge.wearable.settings import PublishSettings
from edge.wearable.telling import Told
from mekt.broker import Broker, free_port
from mekt.inbox import Connected, Disconnected
from mekt.login import BrokerSettings
from tests.edge.wearable.test_home_assistant import ANNA, Home
from tests.mekt.links import needs_mosquitto
from tests.processes import PATIENCE_S, until

FALL = Alarm(label="fall", probability=0.9, since_s=1.0)


def told(at_s: float, *alarms: Alarm) -> Told:
    decision = Decision(at_s=at_s, label="walk", probability=0.9, since_s=0.0, alarms=alarms)
    return Told(decision=decision, wall_s=1_790_000_000.0 + at_s, news=True)


@needs_mosquitto
def test_alarms_that_began_while_the_broker_was_away_are_told_before_how_things_stand(tmp_path: Path) -> None:
    inbox: queue.Queue[Any] = queue.Queue()
    port = free_port()
    said = Broadcast(
        BrokerSettings(port=port), inbox, publish=PublishSettings(topic="mekt-wearable/all"), home=ANNA, retry_s=0.05
    )
    said.start()
    for each in (told(0.0), told(1.0, FALL), told(2.0, FALL), told(3.0)):
        said.tell(each)
    with Broker(tmp_path / "broker", port=port, kind="mosquitto"):
        home = Home(port)
        event = inbox.get(timeout=PATIENCE_S)
        assert isinstance(event, Connected)
        said.heard(event)
        until(lambda: sum(topic.endswith("/alarm-fall") for topic, _ in home.history) == 2)
        states = [payload[:13] for topic, payload in home.history if topic.endswith("/alarm-fall")]
        assert states == [b'{"state": "ON', b'{"state": "OF']
        assert [topic for topic, _ in home.history].count("mekt-wearable/all") == 2, "the fall, and how things stand"
        assert home.available()
        said.stop()
        until(lambda: not home.available())
        home.close()


@needs_mosquitto
def test_several_wearables_share_a_topic_and_a_login_that_is_not_there_yet_is_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port, password = free_port(), tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    login = BrokerSettings(port=port, username="anna", password_file=str(password))
    topic = PublishSettings(topic="mekt-wearable/all")
    inboxes: list[queue.Queue[Any]] = [queue.Queue(), queue.Queue()]
    both = [Broadcast(login, inbox, publish=topic, retry_s=0.05) for inbox in inboxes]
    password.unlink()
    for each in both:
        each.start()
    until(lambda: sum("password cannot be read" in each.getMessage() for each in caplog.records) == len(both))
    password.write_text("secret")
    password.chmod(0o600)
    with Broker(tmp_path / "broker", port=port, kind="mosquitto"):
        assert all(isinstance(inbox.get(timeout=PATIENCE_S), Connected) for inbox in inboxes)
        home = Home(port)
        for at_s, each in enumerate(both):
            each.tell(told(at_s))
        until(lambda: len(home.history) == 2)
        home.close()
        assert not any(isinstance(event, Disconnected) for inbox in inboxes for event in inbox.queue)
        for each in both:
            each.stop()
