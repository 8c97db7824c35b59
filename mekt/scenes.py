"""What the demo's federation learns from: HAPT where it is, else persons that are made up; as settings files."""

import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mekt.errors import SettingsError

FEDERATION = "demo"
DEADLINE_S = 120.0
# HAPT: the public proxy set and the coordinator's few labels are a person each; nobody learns from the tested ones.
HAPT_USERS, HAPT_LABELLED, HAPT_PROXY, HAPT_TEST = range(1, 24), 24, 25, range(26, 31)
SIMULATED_S = 900.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What the demo learns from: recordings for the coordinator, a `[[sensors]]` table for each device."""

    title: str
    proxy: list[str]
    labelled: list[str]
    test: list[str]
    devices: dict[str, str]


def choose_scene(folder: Path, *, data: Path | None, agents: int, seed: int) -> Scene:
    """HAPT from `data`, MEKT_DATA or ../shared/data; where none is named or there, simulated persons, some in `folder`.

    Raises:
        SettingsError: when a folder is named that has no HAPT recordings, or there are fewer persons than devices.
    """
    return _hapt(data, agents) or _simulated(folder, agents, seed)


def write_settings(folder: Path, scene: Scene, *, rounds: int, agents: int, seed: int, port: int) -> None:
    """The settings file of the coordinator in `folder`, and of each device in a folder of its own there."""
    broker = f'[broker]\nhost = "127.0.0.1"\nport = {port}\n'
    (folder / "federation.toml").write_text(
        f'federation = "{FEDERATION}"\nstate = "state"\nrounds = {rounds}\nseed = {seed}\n'
        f"proxy = {json.dumps(scene.proxy)}\nproxy_windows = 512\n"
        f"labelled = {json.dumps(scene.labelled)}\ntest = {json.dumps(scene.test)}\nthreads = 1\n\n"
        "[window]\nwindow_s = 2.56\nstride_s = 1.28\n\n"
        '[[modalities]]\nname = "acc"\nshape = [3]\nrate_hz = 50\nunit = "g"\n\n'
        '[[modalities]]\nname = "gyro"\nshape = [3]\nrate_hz = 50\nunit = "rad/s"\n\n'
        f"[round]\nmin_devices = {agents}\ndeadline_s = {DEADLINE_S}\n\n{broker}",
        encoding="utf-8",
    )
    for name, sensors in scene.devices.items():
        (folder / name).mkdir()
        (folder / name / "device.toml").write_text(
            f'federation = "{FEDERATION}"\ndevice = "{name}"\nstate = "state"\nthreads = 1\n\n'
            f"[windows]\nwhole_source = true\n\n{sensors}\n{broker}",
            encoding="utf-8",
        )


def _table(kind: str, modalities: tuple[str, ...], **settings: Any) -> str:
    lines = {"kind": kind, "modalities": list(modalities), **settings}
    return "[[sensors]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())


def _hapt(data: Path | None, agents: int) -> Scene | None:
    """The HAPT recordings, when they are there."""
    named = data or (Path(os.environ["MEKT_DATA"]) if os.environ.get("MEKT_DATA") else None)
    folder = (named or Path("../shared/data")).absolute() / "hapt"
    if not folder.is_dir():
        if named is not None:
            raise SettingsError(
                f"--data or MEKT_DATA: {named} has no folder hapt; name another, or neither to simulate"
            )
        return None

    def paths(*users: int) -> list[str]:
        return [str(folder / f"user{user:02d}.npz") for user in users]

    if agents > len(HAPT_USERS):
        raise SettingsError(f"--agents: HAPT has {len(HAPT_USERS)} persons to learn from; ask for no more devices")
    devices = {}
    for index, modalities in enumerate(_modalities(agents)):
        recordings = paths(*HAPT_USERS[index::agents])
        devices[f"device-{index + 1}"] = _table("replay", modalities, recordings=recordings, speed=1e6)
    return Scene(
        title=f"HAPT ({folder})",
        proxy=paths(HAPT_PROXY),
        labelled=paths(HAPT_LABELLED),
        test=paths(*HAPT_TEST),
        devices=devices,
    )


def _simulated(folder: Path, agents: int, seed: int) -> Scene:
    """Persons that are made up: for the devices as they run, for the coordinator as recordings."""
    simulate = importlib.import_module("sensors.simulator").simulate
    write_recording = importlib.import_module("sensors.recording").write_recording
    paths = {}
    for subject, name in enumerate(("proxy", "labelled", "test-1", "test-2", "test-3")):
        paths[name] = folder / "recordings" / f"{name}.npz"
        recording = simulate(10_000 + subject, seed=seed, duration_s=SIMULATED_S, modalities=("acc", "gyro"))
        write_recording(paths[name], recording)
    devices = {
        f"device-{index + 1}": _table(
            "simulator", modalities, subject=index + 1, seed=seed, duration_s=SIMULATED_S, speed=1e6
        )
        for index, modalities in enumerate(_modalities(agents))
    }
    return Scene(
        title="simulated persons (no HAPT recordings are here; --data names their folder)",
        proxy=[str(paths["proxy"])],
        labelled=[str(paths["labelled"])],
        test=[str(paths[name]) for name in paths if name.startswith("test")],
        devices=devices,
    )


def _modalities(agents: int) -> list[tuple[str, ...]]:
    kinds: list[tuple[str, ...]] = [("acc",), ("gyro",), ("acc", "gyro")]
    return [kinds[index % len(kinds)] for index in range(agents)]
