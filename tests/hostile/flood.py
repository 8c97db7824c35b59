"""How many malformed messages a second the post turns away, on one core: `python -m tests.hostile.flood`.

Seconds are those that the process computed, so that others on the machine count little.
"""

import argparse
import logging
import random
import sys
import time
from collections.abc import Callable

from mekt.errors import WireError
from mekt.link import Received
from mekt.messages import KINDS, LARGEST_MESSAGE, decode
from mekt.post import Post
from tests.hostile.decoders import DECODERS, FEDERATION, golden, topic_of

MESSAGES = 2000
SECONDS = 2.0
ORDER = sorted(KINDS)
LARGE = {size: bytes(size) for size in (8_193, 100_000, 600_000, LARGEST_MESSAGE + 1)}


def random_bytes(kind: str, chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 2000))


def truncated(kind: str, chance: random.Random) -> bytes:
    raw = golden(kind)
    return raw[: chance.randrange(len(raw))]


def wrong_kind(kind: str, chance: random.Random) -> bytes:
    return golden(chance.choice([other for other in ORDER if other != kind]))


def too_large(kind: str, chance: random.Random) -> bytes:
    # Thousands of megabytes would not fit in memory, and none of these bytes is looked at: they are shared.
    return LARGE[chance.choice([size for size in LARGE if size > KINDS[kind][1]])]


def mutants(kind: str, chance: random.Random) -> bytes:
    """Messages that say something else; those that are valid nevertheless are passed over."""
    while True:
        raw = DECODERS[f"message on {kind}"].mutant(golden(kind), chance)
        try:
            decode(raw, topic_of(kind))
        except WireError:
            return raw


def nests(kind: str, chance: random.Random) -> bytes:
    """The dearest in a few bytes: lists in lists, each as long as it may say, and none of them ends."""
    return b"\xdc\x00\x80" * chance.randrange(300, 600)


GARBAGE: dict[str, Callable[[str, random.Random], bytes]] = {
    "random bytes": random_bytes,
    "truncated": truncated,
    "wrong kind": wrong_kind,
    "too large": too_large,
    "mutants": mutants,
    "nests": nests,
}
MIX = ("random bytes", "truncated", "wrong kind", "too large")


def garbage(names: tuple[str, ...], count: int) -> list[Received]:
    """So many messages of these classes in turn, on topics of every kind; equal arguments give equal messages."""
    chance, made = random.Random(1), list[Received]()
    for number in range(count):
        kind = chance.choice(ORDER)
        raw = GARBAGE[names[number % len(names)]](kind, chance)
        made.append(Received(topic=str(topic_of(kind)), payload=raw, retained=False))
    return made


def rate(messages: list[Received], seconds: float) -> float:
    """Messages a second that a post turns away."""
    post, opened = Post(FEDERATION), 0
    began_s = time.process_time()
    while (took_s := time.process_time() - began_s) < seconds:
        for each in messages:
            post.open(each)
        opened += len(messages)
    assert post.rejected.total() == opened
    return opened / took_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each class (%(default)s)")
    seconds = parser.parse_args().seconds
    logging.disable(logging.CRITICAL)
    print("| malformed messages | turned away a second |\n| --- | --- |")
    print(f"| {', '.join(MIX)}, in equal parts | {rate(garbage(MIX, MESSAGES), seconds):,.0f} |")
    for name in GARBAGE:
        print(f"| {name} | {rate(garbage((name,), MESSAGES), seconds):,.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
