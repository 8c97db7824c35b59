"""What floods are made of is malformed, each class in its own way; how fast it is turned away, no test says."""

from collections import Counter

import pytest

from mekt.post import Post
from tests.hostile.decoders import FEDERATION
from tests.hostile.flood import GARBAGE, MIX, garbage, rate

CAUSE = {
    "random bytes": ("not msgpack", "a message is a map with a body"),
    "truncated": ("not msgpack",),
    "wrong kind": ("message arrived on the topic", "is over this kind's limit"),
    "too large": ("is over this kind's limit",),
    "nests": ("not msgpack",),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_every_message_of_a_flood_is_turned_away_for_what_it_is(name: str) -> None:
    post = Post(FEDERATION)
    messages = garbage((name,), 100)
    assert [post.open(each) for each in messages] == [None] * 100
    assert post.rejected.total() == 100
    if name in CAUSE:
        assert all(any(cause in told for cause in CAUSE[name]) for told in post.rejected)


def test_a_mixed_flood_has_equal_parts_of_its_classes() -> None:
    causes = Counter[str]()
    post = Post(FEDERATION)
    for each in garbage(MIX, 200):
        assert post.open(each) is None
    for told, count in post.rejected.items():
        causes["large" if "over this kind's limit" in told else "kind" if "arrived on" in told else "bytes"] += count
    assert causes["large"] >= 50 and causes["kind"] >= 40 and causes["bytes"] >= 90
    assert garbage(MIX, 20) == garbage(MIX, 20)


def test_a_rate_is_that_of_messages_turned_away() -> None:
    assert rate(garbage(("truncated",), 10), 0.01) > 0
