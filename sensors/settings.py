"""The sensors of a device as settings, a table each, and the source that such a table opens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from mekt import catalogue
from mekt.errors import SettingsError
from mekt.modality import ModalityName
from mekt.schema import Bounds
from sensors.recording import not_there, read_recording
from sensors.replay import ReplaySource
from sensors.simulator import MODALITIES, simulate
from sensors.source import Source

Number = Annotated[int, Bounds(low=0, high=2**31)]
# Four hours of all modalities are half a gigabyte.
LONGEST_SIMULATION_S = 14_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorSettings:
    """A source of samples: `replay` plays `recordings`, `simulator` makes a person up, number `subject`.

    `recordings` are paths of recordings, relative ones start at the settings file. `speed` is how many times faster
    than real time; 1e6 is as fast as anything reads. `seed` and `duration_s` (of the recording) are the simulator's.
    """

    kind: Literal["replay", "simulator"]
    modalities: Annotated[tuple[ModalityName, ...], Bounds(shortest=1, longest=16)]
    recordings: Annotated[tuple[str, ...], Bounds(longest=10_000)] = ()
    speed: Annotated[float, Bounds(above=0, high=1e6)] = 1.0
    subject: Number | None = None
    seed: Number = 0
    duration_s: Annotated[float, Bounds(low=1, high=LONGEST_SIMULATION_S)] = 600.0

    def __post_init__(self) -> None:
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError("modalities: a name occurs twice; name each once")
        match self.kind:
            case "replay":
                if not self.recordings:
                    raise ValueError('recordings: a replay needs a path, such as recordings = ["user01.npz"]')
                if self.subject is not None:
                    raise ValueError("subject: only the simulator has one; remove it")
            case "simulator":
                if self.recordings:
                    raise ValueError('recordings: the simulator plays none; remove them, or set kind = "replay"')
                if self.subject is None:
                    raise ValueError("subject: the simulator needs a number, such as subject = 1")
                if unknown := [name for name in self.modalities if name not in MODALITIES]:
                    raise ValueError(
                        f"modalities: the simulator has no {', '.join(unknown)}; it has {', '.join(MODALITIES)}"
                    )


def open_source(settings: SensorSettings, base: Path) -> Source:
    """The source that `settings` describe, with relative paths from `base`, ready for its `open`.

    Raises:
        SettingsError: when a recording is not there.
        SensorError: when a recording cannot be read or lacks a modality.
    """
    match settings.kind:
        case "replay":
            paths = [base / path for path in settings.recordings]
            for path in paths:
                if not path.is_file():
                    raise SettingsError(f"sensors.recordings: {not_there(path)}", catalogue.RECORDING_NOT_FOUND)
            recordings = [read_recording(path, settings.modalities) for path in paths]
            return ReplaySource(recordings, settings.modalities, speed=settings.speed)
        case "simulator":
            assert settings.subject is not None
            recording = simulate(
                settings.subject,
                seed=settings.seed,
                duration_s=settings.duration_s,
                modalities=settings.modalities,
            )
            return ReplaySource(recording, settings.modalities, speed=settings.speed)
