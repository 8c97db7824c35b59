"""What a federation on one machine learns from: HAPT where it is, else made-up persons; as settings files."""

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mekt import catalogue
from mekt.errors import SettingsError
from mekt.files import make_folder, write_atomically
from mekt.modality import Modality

FEDERATION = "demo"
# HAPT: the public proxy set and the coordinator's few labels are a person each; nobody learns from the tested ones.
HAPT_USERS, HAPT_LABELLED, HAPT_PROXY, HAPT_TEST = range(1, 24), 24, 25, range(26, 31)
FIRST_STRANGER = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """How much there is to do.

    `device_persons`: how many a device senses at most; `windows`: a device's `[windows]`. Of simulated persons, one for
    `sensed_s` by a device, `recorded_s` long recordings for the coordinator. `secure`: knowledge is summed in secret.
    """

    device_persons: int
    test_persons: int
    sensed_s: float
    recorded_s: float
    proxy_windows: int
    windows: Mapping[str, Any]
    method: Mapping[str, Any]
    deadline_s: float
    secure: bool = False


# Few epochs of many windows: a demo is watched.
DEMO = Work(
    device_persons=len(HAPT_USERS),
    test_persons=len(HAPT_TEST),
    sensed_s=900.0,
    recorded_s=900.0,
    proxy_windows=512,
    windows={"whole_source": True},
    method={"local_epochs": 2},
    deadline_s=120.0,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What the federation learns from: recordings for the coordinator, a `[[sensors]]` table for each device."""

    title: str
    modalities: tuple[Modality, ...]
    proxy: list[str]
    labelled: list[str]
    test: list[str]
    devices: dict[str, str]


def choose_scene(folder: Path, *, data: Path | None, agents: int, seed: int, work: Work = DEMO) -> Scene:
    """HAPT from `data`, MEKT_DATA or ../shared/data; where none is named or there, simulated persons, some in `folder`.

    Raises:
        SettingsError: when a folder is named that has no HAPT recordings, or there are fewer persons than devices.
    """
    return _hapt(data, agents, work) or _simulated(folder, agents, seed, work)


def write_settings(
    folder: Path, scene: Scene, *, rounds: int, agents: int, seed: int, port: int, work: Work = DEMO
) -> None:
    """The settings file of the coordinator in `folder`, and of each device in a folder of its own there.

    Raises:
        StateError: when the disk is full or read-only.
    """
    broker = _toml("[broker]", host="127.0.0.1", port=port)
    modalities = "".join(
        _toml("[[modalities]]", name=each.name, shape=list(each.shape), rate_hz=each.rate_hz, unit=each.unit)
        for each in scene.modalities
    )
    federation = _toml(
        "",
        federation=FEDERATION,
        rounds=rounds,
        seed=seed,
        threads=1,
        proxy=scene.proxy,
        proxy_windows=work.proxy_windows,
        labelled=scene.labelled,
        test=scene.test,
    )
    window = _toml("[window]", window_s=2.56, stride_s=1.28)
    method = _toml("[method]", **work.method)
    round_rules = _toml("[round]", min_devices=agents, deadline_s=work.deadline_s, secure=work.secure)
    _write(folder / "federation.toml", federation + window + modalities + method + round_rules + broker)
    for name, sensors in scene.devices.items():
        device = _toml("", federation=FEDERATION, device=name, threads=1, sums_only=work.secure)
        windows = _toml("[windows]", **work.windows)
        _write(make_folder(folder / name) / "device.toml", device + windows + sensors + broker)


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())


def _toml(head: str, **values: Any) -> str:
    """A TOML table; what is put in here is written alike in JSON."""
    return "\n".join([head, *(f"{name} = {json.dumps(value)}" for name, value in values.items())]).lstrip() + "\n\n"


def _hapt(data: Path | None, agents: int, work: Work) -> Scene | None:
    """The HAPT recordings, when they are there."""
    named = data or (Path(os.environ["MEKT_DATA"]) if os.environ.get("MEKT_DATA") else None)
    folder = (named or Path("../shared/data")).absolute() / "hapt"
    if not folder.is_dir():
        if named is not None:
            raise SettingsError(
                f"--data or MEKT_DATA: {named} has no folder hapt; name another, or neither to simulate",
                catalogue.DATA_FOLDER_UNFIT,
            )
        return None

    def paths(*users: int) -> list[str]:
        return [str(folder / f"user{user:02d}.npz") for user in users]

    if agents > len(HAPT_USERS):
        raise SettingsError(
            f"--agents: HAPT has {len(HAPT_USERS)} persons to learn from; ask for no more devices",
            catalogue.TOO_FEW_RECORDED,
        )
    layouts = importlib.import_module("sensors.layouts")
    sensed = (layouts.ACC, layouts.GYRO)
    replayed = [paths(*HAPT_USERS[index::agents][: work.device_persons]) for index in range(agents)]
    devices = {
        f"device-{index + 1}": _toml(
            "[[sensors]]", kind="replay", modalities=names, recordings=replayed[index], speed=1e6
        )
        for index, names in enumerate(_shared_out(sensed, agents))
    }
    return Scene(
        title=f"HAPT ({folder})",
        modalities=sensed,
        proxy=paths(HAPT_PROXY),
        labelled=paths(HAPT_LABELLED),
        test=paths(*HAPT_TEST[: work.test_persons]),
        devices=devices,
    )


def _simulated(folder: Path, agents: int, seed: int, work: Work) -> Scene:
    """Persons that are made up: for the devices as they run, for the coordinator as recordings."""
    simulator = importlib.import_module("sensors.simulator")
    write_recording = importlib.import_module("sensors.recording").write_recording
    sensed = tuple(simulator.MODALITIES[name] for name in ("acc", "gyro"))
    paths = {}
    for index, name in enumerate(("proxy", "labelled", "test-1", "test-2", "test-3")):
        paths[name] = str(folder / "recordings" / f"{name}.npz")
        # Nobody that a device senses: those are numbered from 1.
        recording = simulator.simulate(
            FIRST_STRANGER + index, seed=seed, duration_s=work.recorded_s, modalities=[each.name for each in sensed]
        )
        write_recording(Path(paths[name]), recording)
    simulated = {"seed": seed, "duration_s": work.sensed_s, "speed": 1e6}
    devices = {
        f"device-{index + 1}": _toml("[[sensors]]", kind="simulator", modalities=names, subject=index + 1, **simulated)
        for index, names in enumerate(_shared_out(sensed, agents))
    }
    return Scene(
        title="simulated persons (no HAPT recordings are here; --data names their folder)",
        modalities=sensed,
        proxy=[paths["proxy"]],
        labelled=[paths["labelled"]],
        test=[path for name, path in paths.items() if name.startswith("test")][: work.test_persons],
        devices=devices,
    )


def _shared_out(sensed: Sequence[Modality], agents: int) -> list[list[str]]:
    """The modalities of each device: the first alone, the second alone, all of them, and so on."""
    names = [each.name for each in sensed]
    kinds = [names[:1], names[1:2], names]
    return [kinds[index % len(kinds)] for index in range(agents)]
