"""A plan as this device follows it: by which encoders, on windows of which of its sources."""

import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.lessons import Lesson
from edge.sensing import Sensing
from edge.settings import DeviceSettings
from mekt.errors import SensorError
from mekt.messages import RoundOpen
from mekt.modality import Modality
from mekt.plan import Plan
from sensors.seal import Seal
from sensors.source import Source


class UnfitPlanError(ValueError):
    """A plan that this device cannot follow."""


class Course:
    """One plan, followed from `start` to `leave`. `inbox` gets an `Enough` once, on a sensing thread.

    Private windows lie in `folder`, under this `seal`.

    Raises:
        UnfitPlanError: when the sources do not give what the plan wants, or this machine cannot keep it.
    """

    def __init__(
        self,
        plan: Plan,
        settings: DeviceSettings,
        sources: Sequence[Source],
        inbox: "queue.Queue[Any]",
        folder: Path,
        seal: Seal | None = None,
    ) -> None:
        shared = shared_modalities(plan, sensed_by(sources))
        try:
            self.sensing = Sensing(
                sources,
                shared,
                plan.window,
                settings.windows,
                folder=folder,
                seal=seal,
                enough=lambda: inbox.put(Enough(course=self)),
            )
        except SensorError as error:
            raise UnfitPlanError(f"the federation's plan cannot be followed here: {error}") from error
        self.identity = plan.identity
        self.architectures = {each.name: settings.architecture(each.name) for each in shared}
        self._device = settings.device

    @property
    def model(self) -> str:
        """All that this device's model depends on."""
        encoders = (f"{name}={kind}" for name, kind in sorted(self.architectures.items()))
        return " ".join([self.identity, *encoders])

    @property
    def lost(self) -> frozenset[str]:
        """The modalities of the plan of which nothing is sensed any more."""
        return frozenset(self.architectures) - frozenset(self.sensing.modalities)

    def lesson(self, number: int, word: RoundOpen) -> Lesson:
        """What the announced round is for this device."""
        return Lesson(
            device=self._device,
            round=number,
            plan=word.plan,
            architectures=self.architectures,
            knowledge=word.knowledge,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Enough:
    """Enough private windows have been sensed to learn from, on this course."""

    course: Course


def sensed_by(sources: Sequence[Source]) -> dict[str, Modality]:
    """The modalities that these sources give, by name."""
    return {each.name: each for source in sources for each in source.modalities}


def shared_modalities(plan: Plan, sensed: Mapping[str, Modality]) -> list[Modality]:
    """The modalities of a plan that a device has which senses these, as the plan wants them.

    Raises:
        UnfitPlanError: when it has none, or senses one of them otherwise.
    """
    shared = [each for each in plan.modalities if each.name in sensed]
    for each in shared:
        mine = sensed[each.name]
        if (mine.shape, mine.unit) != (each.shape, each.unit):
            raise UnfitPlanError(
                f"{each.name}: sensed as {mine.shape} in {mine.unit}, the federation wants {each.shape} in "
                f"{each.unit}; correct the sensor's settings or the federation's"
            )
    if not shared:
        raise UnfitPlanError(f"the federation learns {', '.join(plan.scaling)}; this device senses none of them")
    return shared
