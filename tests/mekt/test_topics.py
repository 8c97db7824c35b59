"""Topics: what is built is read back; nothing else is one of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.messages import KINDS
from mekt.topics import Topic, for_coordinator, for_device, for_watcher, for_wearable, parse_topic

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)


def matches(pattern: str, topic: str) -> bool:
    """Whether a subscription to `pattern` gets `topic`; only + is used, for one level."""
    wanted, levels = pattern.split("/"), topic.split("/")
    return len(wanted) == len(levels) and all(a in ("+", b) for a, b in zip(wanted, levels, strict=True))


@given(names, names, st.sampled_from(sorted(KINDS)))
def test_every_topic_that_is_built_is_read_back(federation: str, device: str, kind: str) -> None:
    for topic in (
        Topic(federation=federation, direction="all", kind=kind),
        Topic(federation=federation, direction="up", device=device, kind=kind),
        Topic(federation=federation, direction="down", device=device, kind=kind),
    ):
        assert parse_topic(str(topic)) == topic


def test_topics_are_spelled_as_the_access_control_lists_expect() -> None:
    assert str(Topic(federation="home", direction="all", kind="round")) == "mekt/1/home/round"
    assert str(Topic(federation="home", direction="up", device="pi-3", kind="offer")) == "mekt/1/home/up/pi-3/offer"
    assert str(Topic(federation="home", direction="down", device="pi-3", kind="want")) == "mekt/1/home/down/pi-3/want"


@pytest.mark.parametrize(
    "text",
    [
        *("", "mekt", "mekt/1", "mekt/1/", "mekt/1/home", "mekt/1/home/", "mekt/1//round", "/mekt/1/home/round"),
        *("mekt/2/home/round", "mekt/1x/home/round", "MEKT/1/home/round", "mekt/1/home/round/", "mekt/1/home/round\n"),
        *("mekt/1/+/round", "mekt/1/home/+", "mekt/1/home/#", "mekt/1/#", "mekt/1/home/up/+/offer", "$SYS/broker"),
        *("mekt/1/home/up/pi", "mekt/1/home/up/pi/", "mekt/1/home/up//offer", "mekt/1/home/side/pi/offer"),
        *(
            "mekt/1/home/up/pi/offer/more",
            "mekt/1/home/up/.pi/offer",
            "mekt/1/home/up/p i/offer",
            "mekt/1/home/up/pi/Off",
        ),
        *("mekt/1/home/up/" + "p" * 65 + "/offer", "mekt/1/höme/round", "mekt/1/home/up/pi/" + "k" * 33),
    ],
)
def test_what_is_not_a_topic_of_ours(text: str) -> None:
    assert parse_topic(text) is None


@given(st.text())
def test_any_text_is_a_topic_that_is_spelled_so_or_none(text: str) -> None:
    for candidate in (text, f"mekt/1/{text}", f"mekt/1/home/{text}", f"mekt/1/home/up/{text}"):
        topic = parse_topic(candidate)
        assert topic is None or str(topic) == candidate


def test_each_side_subscribes_to_what_it_may_read_and_no_more() -> None:
    up = str(Topic(federation="home", direction="up", device="pi-3", kind="offer"))
    presence = str(Topic(federation="home", direction="up", device="pi-3", kind="presence"))
    down = str(Topic(federation="home", direction="down", device="pi-3", kind="receipt"))
    round_, status = (str(Topic(federation="home", direction="all", kind=kind)) for kind in ("round", "status"))
    others = str(Topic(federation="home", direction="down", device="pi-4", kind="receipt"))
    rollout = str(Topic(federation="home", direction="all", kind="rollout"))
    everything = {up, presence, down, round_, status, rollout, others}
    for patterns, wanted in (
        (for_coordinator("home"), {up, presence}),
        (for_device("home", "pi-3"), {down, round_}),
        (for_wearable("home", "pi-3"), {down, rollout}),
        (for_watcher("home"), {status, presence}),
    ):
        assert {topic for topic in everything if any(matches(pattern, topic) for pattern in patterns)} == wanted
        assert not any(matches(pattern, topic.replace("home", "away")) for pattern in patterns for topic in everything)
