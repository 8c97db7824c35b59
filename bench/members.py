"""Who was learned from and who was not: a device's windows in two halves that have no sample in common. Pure."""

from dataclasses import dataclass, replace

import numpy as np

from bench.arena import Arena, Device
from bench.choice import Rows
from mekt.modality import WindowSpec
from mekt.plan import derived_seed
from sensors.windows import WindowSet

# Windows that follow one another stay together: an attack must not know a window from the half that it shares with
# its neighbour.
BLOCK = 8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Target:
    """A device that has learned from `device.private` and never saw `outsiders`, of the same person and recording."""

    device: Device
    outsiders: WindowSet


def halves(count: int, spec: WindowSpec, seed: int) -> tuple[Rows, Rows]:
    """Two halves of the rows 0 to count - 1, block by block by lot; between blocks what would overlap is left out."""
    overlapping = int(np.ceil(spec.window_s / spec.stride_s - 1e-9)) - 1
    starts = np.arange(0, count, BLOCK + overlapping)
    np.random.default_rng(seed).shuffle(starts)
    blocks = [np.arange(start, min(start + BLOCK, count)) for start in starts.tolist()]
    inside, outside = (np.sort(np.concatenate([np.empty(0, int), *blocks[side::2]])) for side in (0, 1))
    return inside.astype(np.intp), outside.astype(np.intp)


def target(device: Device, spec: WindowSpec, seed: int) -> Target:
    """The device with half of its windows, which half by the seed and its name."""
    inside, outside = halves(len(device.private), spec, derived_seed(seed, "members", device.name))
    kept = replace(device, private=device.private.select(inside), whole=device.whole.select(inside))
    return Target(device=kept, outsiders=device.private.select(outside))


def targets_and_shadows(arena: Arena, most: int, seed: int) -> tuple[tuple[Target, ...], tuple[Target, ...]]:
    """At most `most` devices to be attacked, and as many others of which the attacker knows everything."""
    count = min(most, len(arena.devices) // 2)
    halved = [target(each, arena.window, seed) for each in arena.devices[: 2 * count]]
    return tuple(halved[:count]), tuple(halved[count:])
