"""Which wearables there are, as they say themselves, and what they run: a bounded number of them. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping

from coordinator.rollout import Progress, RolloutRules, text_of
from mekt import catalogue
from mekt.errors import WireError
from mekt.messages import RELEASES_TOLD, Fitness, RolloutStatus
from mekt.share import takes_part

MOST_WEARABLES = 4096
LONGEST_TEXT = 300
# What stands for a release that this coordinator has not shipped, for none, and for all that there is no room for.
FOREIGN, NONE, OTHERS = "foreign", "none", "others"


class Wearables:
    """The latest word of each wearable."""

    def __init__(self, most: int = MOST_WEARABLES) -> None:
        self._most = most
        self._fitness: dict[str, Fitness] = {}

    def __contains__(self, device: str) -> bool:
        return device in self._fitness

    @property
    def names(self) -> frozenset[str]:
        """Who they are."""
        return frozenset(self._fitness)

    def told(self, device: str, fitness: Fitness) -> None:
        """Take in a wearable's word on itself.

        Raises:
            WireError: when there are too many of them.
        """
        if device not in self._fitness and len(self._fitness) >= self._most:
            raise WireError(
                f"more than {self._most} wearables; start another federation for the rest", catalogue.FEDERATION_FULL
            )
        self._fitness[device] = fitness

    def forget(self, devices: Collection[str]) -> None:
        """These are wearables of the federation no more."""
        for device in devices:
            self._fitness.pop(device, None)

    def status(self, progress: Progress, names: Mapping[bytes, str], rules: RolloutRules) -> RolloutStatus:
        """Where the newest rollout stands. `names`: the releases by the hashes of their zips."""
        running = Counter(
            NONE if each.running is None else names.get(each.running, FOREIGN) for each in self._fitness.values()
        )
        told = dict(running.most_common(RELEASES_TOLD if len(running) <= RELEASES_TOLD else RELEASES_TOLD - 1))
        if len(told) < len(running):
            told[OTHERS] = running.total() - sum(told.values())
        number, share = progress.number, progress.share
        there = [
            each for device, each in self._fitness.items() if takes_part(progress.federation, number, device, share)
        ]
        states = Counter(each.state for each in there if each.number == number)
        words = f"{text_of(progress, rules)} ({len(there)} of {len(self._fitness)} wearables here take part)"
        return RolloutStatus(
            release=progress.release,
            number=number,
            share=share,
            state=progress.state,
            wearables=dict(sorted(told.items())),
            states=dict(sorted(states.items())),
            text=words[:LONGEST_TEXT],
        )
