"""The whole wearable: it waits for its first release, runs it on its sensors, and takes the next one while it works."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.updates.machine import Updates
from edge.updates.slots import Slots
from edge.wearable.daemon import run_wearable
from mekt.blobs import blob_ref
from mekt.messages import Fitness, Rollout
from mekt.process import Stop
from sensors.recording import write_recording
from sensors.simulator import simulate
from tests.edge.conftest import DEVICE, FEDERATION, HandMade
from tests.edge.updates.shipped import permuted, public_key, shipped, sign, surer
from tests.waiting import WAIT_S, until

FIRST, NEXT, BROKEN = shipped(1), shipped(2, surer), shipped(3, permuted)


def config_of(folder: Path, port: int, times: int = 60, more: str = "") -> Path:
    path = folder / "wearable.toml"
    # Again and again, for longer than a test can take.
    recordings = ["body.npz"] * times
    path.write_text(f"""
repeat_s = 0
[[sensors]]
kind = "replay"
recordings = {recordings}
modalities = ["acc", "gyro"]
speed = 10
[updates]
federation = "{FEDERATION}"
device = "{DEVICE}"
trust = "coordinator.pub"
broker = {{ port = {port} }}
self_test = {{ classes = 1 }}
trial = {{ hours = 0.0003 }}
{more}
""")
    return path


@contextmanager
def worn(config: Path, out: io.StringIO) -> Iterator[None]:
    """A wearable at work on a thread of its own."""
    stop, codes = Stop(), list[int]()
    thread = threading.Thread(target=lambda: codes.append(run_wearable(config, stop=stop, out=out)))
    thread.start()
    try:
        yield
    finally:
        stop.request()
        thread.join(WAIT_S)
    assert codes == [0]


def test_a_wearable_takes_what_is_shipped_and_says_what_its_wearer_does_all_the_while(
    tmp_path: Path, coordinator: HandMade
) -> None:
    write_recording(tmp_path / "body.npz", simulate(1, duration_s=60))
    public_key(tmp_path)
    coordinator.post.sign = sign

    def ship(number: int, data: bytes, ends: str) -> Fitness:
        coordinator.blobs[blob_ref(data).sha256] = data
        said = Rollout(release=f"ward-{number}", blob=blob_ref(data), number=number, share=1.0)
        coordinator.post.send(said, "all", retain=True)
        last: Fitness = coordinator.until(Fitness, number=None, state=ends)
        assert last.number == number
        return last

    out = io.StringIO()
    with worn(config_of(tmp_path, coordinator.port), out):
        coordinator.until(Fitness, state="running")
        assert out.getvalue() == ""
        ship(1, FIRST, "good")
        before = len(out.getvalue().splitlines())
        assert before > 0
        assert ship(2, NEXT, "good").agreement_percent == 100
        assert ship(3, BROKEN, "refused").why == "disagrees"
        lines = len(out.getvalue().splitlines())
        assert lines > before
        until(lambda: len(out.getvalue().splitlines()) > lines)
    assert {tuple(json.loads(line)["modalities"]) for line in out.getvalue().splitlines()} == {("acc", "gyro")}


def test_a_release_that_cannot_even_be_begun_with_gives_way_to_the_last_good_one(tmp_path: Path) -> None:
    """It was on trial, knows no class of those that the settings name, and the process begins."""
    write_recording(tmp_path / "body.npz", simulate(1, duration_s=5))
    unknown = shipped(2, labels=("lie", "run", "fall"))
    good, running = blob_ref(FIRST), blob_ref(unknown)
    slots = Slots(tmp_path / "state")
    for data in (FIRST, unknown):
        slots.put(data, None)
    slots.keep(Updates(phase="trial", number=1, running=running, good=good, target=running, starts=1))
    public_key(tmp_path)
    config = config_of(tmp_path, 1, 1, "[decide.alarms]\nwalk = {}")
    out = io.StringIO()
    assert run_wearable(config, stop=Stop(), out=out) == 0
    assert len(out.getvalue().splitlines()) == 9
    state = Slots(tmp_path / "state").state
    assert (state.phase, state.why, state.running) == ("rolled-back", "unfit", good)
