"""A whole update in which the power is cut before every step on the disk, in turn; it then goes on, and ends well.

    python -m tests.edge.updates.power_cuts FOLDER ENDING

The releases a.zip and b.zip lie in FOLDER; a wearable that runs the first updates to the second, which ENDING says
proves "good" or is "rolled-back". Each cut is a process that kills itself when it is about to take its n-th step. What
is printed is how many there were. This process has no torch, so that a fork costs little.
"""

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.audit import FOLDER as AUDIT
from edge.updates.arrival import ARRIVING
from edge.updates.handover import Handover, Saw
from edge.updates.machine import Failed, Judged, Updates, commands_at_start
from edge.updates.settings import TrialSettings, UpdateSettings
from edge.updates.slots import RELEASES, Slots
from edge.updates.worker import Updating
from mekt.blobs import blob_ref, read_chunk
from mekt.messages import Rollout

STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
SETTINGS = UpdateSettings(federation="ward", device="wrist", trial=TrialSettings(hours=0.01))
STATE = "state"


def life(base: Path, data: bytes, ending: str) -> None:
    """A process that updates to the release `data` as far as it gets."""
    rollout = Rollout(release="ward-2", blob=blob_ref(data), number=1, share=1.0)
    handover = Handover()
    updating = Updating(SETTINGS, base, base / STATE, handover)
    slots = updating._slots
    release = handover.take(0.0)
    assert release is not None, "nothing to run"
    assert release.manifest.round == (2 if slots.state.running == rollout.blob else 1)
    updating._follow(commands_at_start(slots.state))
    updating._on_rollout(rollout)
    now_s = 0.0
    while slots.state.phase == "fetching":
        now_s += 100
        for want in updating._arrival.due(now_s, 0):
            for index in want.chunks:
                chunk = read_chunk(data, rollout.blob, index)
                assert chunk is not None
                updating._on_chunk(chunk)
    updating._advance(Judged(blob=rollout.blob))
    while slots.state.phase == "trial":
        now_s += 1
        if ending == "good":
            updating._on_trial(Saw(release=rollout.blob, now_s=now_s, probability=0.9, latency_ms=1.0))
        else:
            updating._advance(Failed(why="silent"))
    assert not updating._resting, "the disk was not at fault"


def kill_at(step: int, folder: Path) -> None:
    """Kill this process when it is about to take this step in `folder`, from 1 on; the audit log's are not counted."""
    taken = 0

    def take(path: str) -> None:
        nonlocal taken
        if path.startswith(str(folder)) and AUDIT not in path:
            taken += 1
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in STEPS:
            take(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else "")

    durable = os.fsync

    def fsync(file: int) -> None:
        take(str(Path(f"/proc/self/fd/{file}").readlink()))
        durable(file)

    sys.addaudithook(hook)
    os.fsync = fsync  # type: ignore[assignment]


def ended(work: Callable[[], None]) -> int:
    """How a process ended that did this: 0, the number of a signal, or anything else."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main(folder: Path, ending: str) -> None:
    """Cut the power before the first step, the second, ... until there is none any more."""
    first, second = ((folder / name).read_bytes() for name in ("a.zip", "b.zip"))
    start = folder / "start"
    slots = Slots(start / STATE)
    slots.put(first, None)
    slots.keep(Updates(running=blob_ref(first)))
    kills = 0
    while True:
        base = folder / "base"
        shutil.copytree(start, base)

        def cut(base: Path = base, step: int = kills + 1) -> None:
            kill_at(step, base)
            life(base, second, ending)

        end = ended(cut)
        assert end in (0, signal.SIGKILL), f"step {kills + 1}"
        files = {path.name for path in (base / STATE).rglob("*") if path.is_file() and AUDIT not in str(path)}
        releases = {name for name in files if len(name) >= len(blob_ref(first).sha256.hex())} | (files & {ARRIVING})
        assert len(releases) <= 3, f"step {kills + 1}: {releases}"

        def go_on(base: Path = base) -> None:
            life(base, second, ending)

        assert ended(go_on) == 0, f"after step {kills + 1}"
        slots = Slots(base / STATE)
        running = blob_ref(second if ending == "good" else first)
        assert (slots.state.phase, slots.state.running) == (ending, running), f"after step {kills + 1}: {slots.state}"
        assert slots.read(running) is not None
        kept = {running, blob_ref(first)}
        assert {path.name for path in (base / STATE / RELEASES).iterdir()} == {ref.sha256.hex() for ref in kept}
        assert not (base / STATE / ARRIVING).exists()
        shutil.rmtree(base)
        if end == 0:
            break
        kills += 1
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
