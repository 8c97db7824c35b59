"""What the broker permits: the login, the protocol, its limits, and what may be heard and said; each tried for real.

How far a try can see depends on the broker. Mosquitto grants subscriptions that its access list then withholds, so a
message has to come back; MQTT 3.1.1 acknowledges also what is dropped, so there nothing is sent.
"""

import time
from collections.abc import Iterator

from mekt import catalogue
from mekt.check import VISIT, Check, failed, ok, refused, skipped, warning
from mekt.connection import QOS, V5, V311
from mekt.errors import LinkError, SettingsError
from mekt.messages import KINDS
from mekt.outgoing import PACKET_OVERHEAD_BYTES
from mekt.session import UNSUPPORTED_PROTOCOL
from mekt.topics import Topic, for_coordinator, for_device, for_wearable
from mekt.visit import Guest, Visit

# The largest message that has to pass, with room for the status of a federation of many devices.
LEAST_PACKET_BYTES = 128 * 1024
assert KINDS["chunk"][1] + PACKET_OVERHEAD_BYTES <= LEAST_PACKET_BYTES, "a chunk would not pass"
RETAINED_S = 1.5
# No kind of message is called this, so what is sent under it is dropped by the topic alone.
NO_KIND = "doctor"
# What a wearable says.
WEARABLE_KINDS = ("fitness", "want", "renewal")
# Stands for any device where the coordinator's permissions are tried.
NOBODY = "mekt-doctor"
CLIENT_ID_REFUSED = 133


def check_permits(guest: Guest, limit_s: float) -> Iterator[Check]:
    """Login, protocol, limits and permissions, as the guest's daemon will meet them; in `limit_s` at most."""
    ends_s = time.monotonic() + limit_s
    try:
        visit = _arrive(guest, ends_s)
    except SettingsError as error:
        yield refused("login", str(error), SettingsError, entry=error.entry)
        yield from (skipped(name, "the login needs files that cannot be read") for name in VISIT[1:])
        return
    try:
        if visit.welcome is None or visit.welcome.is_failure:
            yield _not_welcome(guest, visit)
            yield from (skipped(name, "nobody is logged in") for name in VISIT[1:])
            return
        yield ok("login", f"as {_login(guest)}, client id {visit.client_id}")
        yield _protocol(visit)
        yield _packet_limit(visit)
        yield _delivery(visit)
        yield from _permissions(guest, visit)
        yield _client_id(guest, visit, ends_s)
    finally:
        visit.leave(keep_session=visit.session_present)


def _arrive(guest: Guest, ends_s: float) -> Visit:
    """In MQTT 5, and in 3.1.1 where the broker does not know it or is silent."""
    visit = Visit(guest, V5, ends_s)
    visit.arrive()
    if visit.welcome is None or visit.welcome.value == UNSUPPORTED_PROTOCOL:
        visit.leave()
        older = Visit(guest, V311, ends_s)
        older.arrive()
        if older.welcome is not None or visit.welcome is not None:
            return older
    return visit


def _not_welcome(guest: Guest, visit: Visit) -> Check:
    if visit.welcome is None:
        remedy = "check the port, that an MQTT broker runs there, and that both sides use TLS or neither"
        return failed(
            "login", f"the login is not answered ({visit.lost})", remedy, LinkError, catalogue.LOGIN_UNANSWERED
        )
    seen = f"the broker refuses the login ({visit.welcome})"
    if visit.welcome.value == CLIENT_ID_REFUSED:
        remedy = f"have the broker accept client ids that begin like {visit.client_id}"
    elif not guest.settings.identified:
        remedy = "it lets nobody in without a name: set [broker] username and password_file, or a certificate"
    elif guest.settings.username is not None and guest.settings.password_file is None:
        remedy = "the user name has no password: set [broker] password_file"
    else:
        remedy = "check user name, the content of password_file and certificate, and that the broker knows this user"
    return failed("login", seen, remedy, LinkError, catalogue.LOGIN_REFUSED)


def _protocol(visit: Visit) -> Check:
    if visit.v5:
        return ok("protocol", "MQTT 5")
    seen = (
        "the broker speaks MQTT 3.1.1 only: sessions of absent devices do not expire, refusals carry no reason, its "
        "limits are unknown"
    )
    return warning("protocol", seen, "a broker for MQTT 5, such as mosquitto 2, has none of this")


def _packet_limit(visit: Visit) -> Check:
    name = "packet limit"
    if not visit.v5:
        return skipped(name, f"MQTT 3.1.1 does not tell it; {LEAST_PACKET_BYTES} bytes are needed")
    most: int | None = getattr(visit.limits, "MaximumPacketSize", None)
    if most is None:
        return ok(name, "the broker names none")
    if most >= LEAST_PACKET_BYTES:
        return ok(name, f"{most} bytes")
    seen = f"the broker carries at most {most} bytes at a time, and {LEAST_PACKET_BYTES} are needed"
    remedy = f"raise it to {LEAST_PACKET_BYTES} or more; in mosquitto.conf it is max_packet_size"
    return failed(name, seen, remedy, LinkError, catalogue.PACKET_TOO_LARGE)


def _delivery(visit: Visit) -> Check:
    """QoS 1, so that messages arrive; retained messages, for who comes late; wildcards, to hear all devices."""
    name = "delivery"
    if not visit.v5:
        return skipped(name, "MQTT 3.1.1 does not tell which QoS it has, nor whether it retains")
    qos = getattr(visit.limits, "MaximumQoS", 2)
    lacks = []
    if qos < QOS:
        lacks.append(f"QoS {QOS} (max_qos)")
    if getattr(visit.limits, "RetainAvailable", 1) == 0:
        lacks.append("retained messages (retain_available)")
    if getattr(visit.limits, "WildcardSubscriptionAvailable", 1) == 0:
        lacks.append("subscriptions with wildcards")
    if lacks:
        remedy = "allow it in the broker's configuration (in brackets: mosquitto's name for it)"
        return failed(name, f"the broker does without {', '.join(lacks)}", remedy, LinkError, catalogue.BROKER_LACKS)
    return ok(name, f"QoS up to {qos}, retained messages, wildcards")


# Permissions


def _permissions(guest: Guest, visit: Visit) -> Iterator[Check]:
    if guest.role == "wearable" and not guest.federation:
        why = "what a wearable says there is part of no federation, and is not tried"
        yield from (skipped(name, why) for name in ("publish", "subscribe"))
    elif not guest.federation:
        why = "the federation's name is not known; name a settings file with --config"
        yield from (skipped(name, why) for name in ("publish", "subscribe"))
    else:
        # In this order: to see whether messages arrive, one is written where a device may well not write, and there
        # are brokers that answer that by ending the connection.
        yield _may_say(guest, visit)
        yield from (_may_hear(guest, visit, topic) for topic in _heard(guest))


def _heard(guest: Guest) -> tuple[str, ...]:
    if guest.role == "edge":
        return for_device(guest.federation, guest.device)
    if guest.role == "wearable":
        return for_wearable(guest.federation, guest.device)
    return for_coordinator(guest.federation)


def _said(guest: Guest) -> list[str]:
    """Every topic that the daemon publishes under; for all devices stands one that nobody is."""
    topics = []
    for kind, (_, _, directions) in KINDS.items():
        if "up" in directions and (guest.role == "edge" or (guest.role == "wearable" and kind in WEARABLE_KINDS)):
            topics.append(Topic(federation=guest.federation, direction="up", kind=kind, device=guest.device))
        if guest.role == "coordinator" and "all" in directions:
            topics.append(Topic(federation=guest.federation, direction="all", kind=kind))
        if guest.role == "coordinator" and "down" in directions:
            topics.append(Topic(federation=guest.federation, direction="down", kind=kind, device=NOBODY))
    return [str(topic) for topic in topics]


def _may_hear(guest: Guest, visit: Visit, topic: str) -> Check:
    """Whether a subscription is granted, and as far as possible, kept: mosquitto grants what it then withholds."""
    name, login = "subscribe", _login(guest)
    if visit.lost:
        return skipped(name, f"{topic}: {visit.lost}")
    remedy = f"let {login} read {topic} in the broker's access control list"
    answer = visit.subscribe(topic)
    if answer is None:
        return failed(name, f"{topic}: no answer ({visit.lost})", remedy, LinkError, catalogue.TOPIC_FORBIDDEN)
    if answer.is_failure:
        return failed(name, f"{topic}: the broker refuses it ({answer})", remedy, LinkError, catalogue.TOPIC_FORBIDDEN)
    if "+" not in topic:
        # What is there is the coordinator's retained word; a probe of ours would go to every device.
        if visit.got(lambda each: each == topic, RETAINED_S):
            return ok(name, f"{topic}: granted, and what is retained there arrives")
        lacks, begin = "no coordinator was here yet", "start the coordinator, then look again"
        if guest.role == "wearable":
            lacks, begin = "no release was shipped yet", "the first `mekt release promote` is waited for"
        seen = f"{topic}: granted, but nothing arrives: {lacks}, or it is withheld"
        return warning(name, seen, f"{begin}; if this stays, {remedy}")
    stem, _, last = topic.rpartition("/")
    own = f"{stem.replace('+', NOBODY)}/{NO_KIND if last == '+' else last}"
    return _round_trip(visit, topic, own, remedy)


def _round_trip(visit: Visit, topic: str, own: str, remedy: str) -> Check:
    """Whether a probe under `own` comes back through a subscription to `topic`."""
    name = "subscribe"
    stem = topic.split("+")[0]
    answer = visit.publish(own)
    refused_here = answer is None or answer.is_failure
    if visit.got(lambda each: each.startswith(stem), 0.0 if refused_here else RETAINED_S):
        return ok(name, f"{topic}: granted, and messages arrive")
    if refused_here or not visit.v5:
        return ok(name, f"{topic}: granted; whether messages arrive cannot be tried, as this login may not write there")
    return failed(name, f"{topic}: granted, but messages are withheld", remedy, LinkError, catalogue.TOPIC_FORBIDDEN)


def _may_say(guest: Guest, visit: Visit) -> Check:
    """Whether every topic may be published under, as the broker's acknowledgements say."""
    name, topics = "publish", _said(guest)
    if not visit.v5:
        return skipped(name, "MQTT 3.1.1 acknowledges also what it drops; nothing can be seen, and nothing was sent")
    denied: dict[str, str] = {}
    tried = []
    for topic in topics:
        if visit.lost:
            break
        answer = visit.publish(topic)
        tried.append(topic)
        if answer is None:
            denied[topic] = visit.lost
        elif answer.is_failure:
            denied[topic] = str(answer)
    if denied:
        seen = ", ".join(f"{topic} ({why})" for topic, why in denied.items())
        remedy = f"let {_login(guest)} write there in the broker's access control list"
        return failed(name, f"the broker refuses {seen}", remedy, LinkError, catalogue.TOPIC_FORBIDDEN)
    if not tried:
        return skipped(name, visit.lost)
    kinds = ", ".join(topic.rpartition("/")[2] for topic in topics)
    return ok(name, f"{topics[0].rpartition('/')[0]}/...: {kinds} are accepted")


def _login(guest: Guest) -> str:
    """Who this is for the broker."""
    return guest.settings.username or ("this certificate" if guest.settings.identified else "a client without a name")


def _client_id(guest: Guest, visit: Visit, ends_s: float) -> Check:
    """Whether the broker goes by client ids, or takes the user name for one: then one login is one connection."""
    name = "client id"
    if not guest.settings.identified:
        return skipped(name, "without user name or certificate it cannot stand for anything else")
    if not visit.v5:
        return skipped(name, "MQTT 3.1.1 does not show whether the broker goes by it")
    tied = visit.session_present
    if not tied:
        second = Visit(guest, V5, ends_s)
        second.arrive()
        # Under an id that was drawn just now, nobody can have left a session.
        tied = second.session_present
        second.leave()
    if tied:
        seen = "the broker takes the user name for the client id: a second connection of this login ends the first"
        return warning(name, seen, "end a daemon before you look with its login, or give onlookers one of their own")
    return ok(name, "the broker goes by it; several connections of one login do not disturb each other")
