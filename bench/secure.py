"""What secure aggregation takes on this machine: bytes of a device, seconds of device and coordinator, exactness."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TextIO, TypeVar

import msgpack
import numpy as np

from bench.tables import number
from mekt.arrays import pack_knowledge
from mekt.fixedpoint import COARSE, FINE, FixedPoint
from mekt.masks import Collector, Member, least_threshold
from mekt.schema import plain
from mekt.shamir import SECRET_BYTES

# One modality of HAPT's knowledge, and as many devices as a round of it has there, and fewer, and all.
SHAPE = (1024, 32)
DEVICES = (3, 8, 23)
REPEATS = 5
WINDOWS = 350
CONTEXT = b"bench/secure"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of one modality in one round, the medians of some: bytes a device sends and gets, seconds, the largest error.

    `plain_bytes` is what it would send as int4; `silent` fell silent after they had dealt their shares.
    """

    bits: int
    devices: int
    silent: int
    threshold: int
    plain_bytes: int
    words_bytes: int
    other_up_bytes: int
    other_down_bytes: int
    device_s: float
    coordinator_s: float
    is_exact: bool
    error: float


def measure(devices: int, silent: int, repeats: int = REPEATS, fixed: FixedPoint = FINE) -> Cost:
    """So many rounds of so many devices, on chance for knowledge.

    Raises:
        MissingPackageError: when `cryptography` is not installed.
    """
    done = [_round(devices, silent, seed, fixed) for seed in range(repeats)]
    middle = sorted(done, key=lambda each: each.device_s + each.coordinator_s)[len(done) // 2]
    assert all(each.is_exact for each in done), "a sum came out wrong"
    return middle


def _round(devices: int, silent: int, seed: int, fixed: FixedPoint) -> Cost:
    generator = np.random.default_rng(seed)
    names = [f"device-{place}" for place in range(devices)]
    rows = {name: generator.normal(size=SHAPE).astype(np.float32) for name in names}
    weights = {name: int(generator.integers(1, min(WINDOWS, fixed.most_weight))) for name in names}
    threshold = least_threshold(devices)
    clock = _Clock()
    members = {name: clock("device", Member, name, CONTEXT, generator.bytes(SECRET_BYTES)) for name in names}
    collector = Collector(CONTEXT)
    up = down = 0
    for member in members.values():
        word = clock("device", getattr, member, "advertisement")
        up += _size(plain(word))
        collector.advertised(word)
    for name, member in members.items():
        advertised = collector.advertisements()
        down += _size([plain(each) for each in advertised])
        dealt = clock("device", member.share, advertised)
        up += _size(dealt)
        collector.dealt(name, dealt)
    words = {name: fixed.words(rows[name], weights[name]) for name in names}
    for name in names[silent:]:
        sealed = collector.for_member(name)
        down += _size(sealed)
        clock("device", members[name].open, sealed)
        collector.masked(name, clock("device", members[name].mask, words[name]))
    for name in names[silent:]:
        down += _size(sorted(collector.survivors))
        told = clock("device", members[name].reveal, collector.survivors)
        up += _size(plain(told))
        collector.revealed(name, told)
    total = clock("coordinator", collector.sum)
    there = names[silent:]
    exact = np.average(np.stack([rows[name] for name in there]), axis=0, weights=[weights[name] for name in there])
    return Cost(
        bits=fixed.bits,
        devices=devices,
        silent=silent,
        threshold=threshold,
        plain_bytes=len(pack_knowledge(rows[names[0]], None, "int4")),
        words_bytes=total.nbytes,
        other_up_bytes=math.ceil(up / devices),
        other_down_bytes=math.ceil(down / devices),
        device_s=clock.seconds["device"] / devices,
        coordinator_s=clock.seconds["coordinator"],
        is_exact=bool((total == np.sum([words[name] for name in there], axis=0, dtype=total.dtype)).all()),
        error=float(np.abs(fixed.mean(total, SHAPE)[0] - exact).max()),
    )


class _Clock:
    """Processor seconds by who works."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, who: str, work: Callable[..., T], *arguments: Any) -> T:
        began_s = time.process_time()
        result = work(*arguments)
        self.seconds[who] = self.seconds.get(who, 0.0) + time.process_time() - began_s
        return result


def _size(message: Any) -> int:
    return len(msgpack.packb(message))


def show_secure(*, as_json: bool, quick: bool, out: TextIO) -> int:
    """Print what it takes with every number of devices, with all of them there and with a quarter silent.

    Raises:
        MissingPackageError: when `cryptography` is not installed.
    """
    costs = [
        measure(devices, silent, 1 if quick else REPEATS, fixed)
        for fixed in (FINE, COARSE)
        for devices in (DEVICES[:2] if quick else DEVICES)
        if devices <= fixed.most_devices
        for silent in sorted({0, devices // 4})
    ]
    if as_json:
        precision = {str(each.bits): each.precision for each in (FINE, COARSE)}
        print(json.dumps({"precision": precision, "rounds": [plain(each) for each in costs]}), file=out)
        return 0
    print("\n".join(table(costs)), file=out)
    return 0


def table(costs: list[Cost]) -> list[str]:
    """Markdown, and what its columns mean."""
    rows: list[Mapping[str, str]] = [
        {
            "bits": str(each.bits),
            "devices": str(each.devices),
            "silent": str(each.silent),
            "as int4 (kB)": number(each.plain_bytes / 1000),
            "masked words (kB)": number(each.words_bytes / 1000),
            "keys and shares, up (kB)": number(each.other_up_bytes / 1000),
            "down (kB)": number(each.other_down_bytes / 1000),
            "device (ms)": number(1000 * each.device_s),
            "coordinator (ms)": number(1000 * each.coordinator_s),
            "largest error": f"{each.error:.5f}",
        }
        for each in costs
    ]
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return [
        *lines,
        "",
        f"- One modality of {SHAPE[0]} x {SHAPE[1]} numbers, one round, the mean device; processor seconds, medians of "
        f"{REPEATS} rounds. Sums are exact in fixed point; the error is the weighted mean's, at most "
        f"{FINE.precision:.5f} promised with words of {FINE.bits} bits, {COARSE.precision:.5f} with {COARSE.bits}.",
    ]
