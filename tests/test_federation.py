"""The whole of Mekt as it is deployed: processes over a real broker, watched from outside by somebody who reads all."""

import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mekt.arrays import largest_knowledge_bytes, unpack_knowledge, unpack_windows
from mekt.messages import Chunk, Offer, Presence, RoundOpen, Status
from mekt.plan import BlobRef, Plan
from tests.federation import DEVICES, ROOT, ROUNDS, Federation, federation
from tests.nursery import forked
from tests.recordings import persons


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody disturbed."""

    federation: Federation
    status: Status
    sockets: dict[str, set[int]]
    stopped_s: dict[str, float]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where simulated recordings are kept, when there are no real ones."""
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, recordings: Path) -> Iterator[Undisturbed]:
    """One run from start to stop, which several tests look at."""
    ward = federation(tmp_path_factory.mktemp("ward"), recordings)
    try:
        ward.listen()
        for name in ("coordinator", *DEVICES):
            ward.start(name)
        status = ward.finish()
        sockets = {name: connections(process.pid, ward.broker.port) for name, process in ward.processes.items()}
        stopped_s = ward.stop()
        while ward.hear() is not None:
            pass
        yield Undisturbed(ward, status, sockets, stopped_s)
    finally:
        ward.end()


def connections(pid: int, port: int) -> set[int]:
    """Local ports of the TCP connections that a process has to a port of 127.0.0.1, as the kernel lists them."""
    files = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {name.removeprefix("socket:[").rstrip("]") for name in files if name.startswith("socket:[")}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Columns of /proc/net/tcp: 1 local and 2 remote address, 3 state (01 is established), 9 inode.
    return {
        int(row[1].split(":")[1], 16)
        for row in rows
        if row[9] in inodes and row[3] == "01" and int(row[2].split(":")[1], 16) == port
    }


def plan_of(ward: Federation) -> Plan:
    [plan] = {
        body.plan.identity: body.plan for _, each in ward.heard if isinstance(body := each.body, RoundOpen)
    }.values()
    return plan


def blobs_of(ward: Federation, direction: str) -> dict[tuple[str, bytes], bytes]:
    """Every blob that crossed the broker in this direction, by device and hash, put together from its chunks."""
    parts: dict[tuple[str, bytes], dict[int, bytes]] = defaultdict(dict)
    for way, each in ward.heard:
        if isinstance(each.body, Chunk) and way == direction:
            parts[each.device, each.body.sha256][each.body.index] = each.body.data
    return {key: b"".join(chunks[index] for index in sorted(chunks)) for key, chunks in parts.items()}


def test_every_part_is_a_process_with_a_tcp_connection_of_its_own(undisturbed: Undisturbed) -> None:
    assert set(undisturbed.sockets) == {"coordinator", *DEVICES}
    ports = [port for each in undisturbed.sockets.values() for port in each]
    assert all(len(each) == 1 for each in undisturbed.sockets.values()) and len(set(ports)) == len(ports)


def test_every_device_delivers_in_every_round(undisturbed: Undisturbed) -> None:
    reports = undisturbed.status.reports
    assert [each.round for each in reports] == list(range(ROUNDS + 1))
    assert all(each.devices == tuple(sorted(DEVICES)) for each in reports[1:])
    for each in reports:
        assert {"weighted_f1/acc", "weighted_f1/gyro", "weighted_f1/fused"} <= set(each.metrics)
        assert set(each.seconds) >= {"classify", "score", "export"}


def test_devices_send_embeddings_of_the_proxy_set_and_nothing_else(undisturbed: Undisturbed) -> None:
    ward = undisturbed.federation
    plan = plan_of(ward)
    method = plan.method
    offered = {
        (each.device, ref.sha256): name
        for _, each in ward.heard
        if isinstance(each.body, Offer)
        for name, ref in each.body.knowledge.items()
    }
    sent = blobs_of(ward, "up")
    assert set(sent) == set(offered) and len(sent) == ROUNDS * sum(len(each) for each in DEVICES.values())
    largest = largest_knowledge_bytes(plan.knowledge_rows, method.embedding, None, method.encoding)
    for (device, sha256), data in sent.items():
        assert offered[device, sha256] in DEVICES[device] and hashlib.sha256(data).digest() == sha256
        unpack_knowledge(data, windows=plan.knowledge_rows, embedding=method.embedding, hidden=None)
        assert len(data) <= largest
    kinds = {each.kind for way, each in ward.heard if way == "up"}
    assert kinds == {"presence", "offer", "want", "chunk"}
    # What is not a chunk has no room for data: its size does not depend on the windows that a device has.
    assert max(len(str(each.body)) for way, each in ward.heard if way == "up" and each.kind != "chunk") < 2000


def test_devices_get_the_proxy_set_and_embeddings_and_nothing_else(undisturbed: Undisturbed) -> None:
    ward = undisturbed.federation
    plan = plan_of(ward)
    proxy = {ref.sha256: name for name, ref in plan.proxy.items()}
    for (device, sha256), data in blobs_of(ward, "down").items():
        if sha256 in proxy:
            modality = plan.modality(proxy[sha256])
            assert modality is not None and modality.name in DEVICES[device]
            unpack_windows(data, (plan.proxy_windows, *plan.window.shape(modality)))
        else:
            unpack_knowledge(data, windows=plan.knowledge_rows, embedding=plan.method.embedding, hidden=None)


def test_bytes_on_the_wire_are_those_that_crossed_the_broker(undisturbed: Undisturbed) -> None:
    """Between the payloads and 15 % more: MQTT's headers, acknowledgements, and what is sent to keep alive."""
    ward = undisturbed.federation
    for name in DEVICES:
        told = [each.body for _, each in ward.heard if isinstance(each.body, Presence) and each.device == name]
        counted = max(told, key=lambda body: body.up_bytes)
        chunks = {key: data for key, data in blobs_of(ward, "up").items() if key[0] == name}
        payload = sum(len(data) for data in chunks.values())
        assert payload < counted.up_bytes < 1.15 * payload + 20_000
        payload = sum(len(data) for key, data in blobs_of(ward, "down").items() if key[0] == name)
        assert payload < counted.down_bytes < 1.15 * payload + 20_000


def test_everybody_stops_within_five_seconds_and_says_goodbye(undisturbed: Undisturbed) -> None:
    assert max(undisturbed.stopped_s.values()) < 5
    last = {each.device: each.body.state for _, each in undisturbed.federation.heard if isinstance(each.body, Presence)}
    assert last == dict.fromkeys(DEVICES, "offline")


def test_the_release_scores_the_same_by_onnxruntime_alone(undisturbed: Undisturbed, recordings: Path) -> None:
    command = [sys.executable, "-m", "mekt", "score", "--json", "--release", str(undisturbed.federation.release)]
    command += ["--recordings", *persons(recordings, (26, 27))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    scores = json.loads(done.stdout)
    trained = undisturbed.status.reports[-1].metrics
    for name, value in scores["weighted_f1"].items():
        assert value == pytest.approx(trained[f"weighted_f1/{name}"], abs=1e-9)
    assert set(scores["weighted_f1"]) == {"acc", "gyro", "fused"} and scores["windows"] > 50


def test_killed_at_any_moment_the_federation_ends_with_the_same_release(
    undisturbed: Undisturbed, tmp_path: Path, recordings: Path
) -> None:
    ward = federation(tmp_path, recordings, launch=forked)
    try:
        ward.listen()
        for name in ("coordinator", *DEVICES):
            ward.start(name)

        def kill(name: str) -> None:
            process = ward.processes.pop(name)
            process.kill()
            process.wait()

        ward.until(Presence, device="pi-both", activity="training", round=0)
        kill("pi-both")
        ward.start("pi-both")
        ward.once(Offer, device="pi-acc", round=0)
        kill("coordinator")
        ward.start("coordinator")
        ward.until(Status, round=1)
        kill("pi-gyro")
        ward.broker.kill()
        ward.broker.start()
        ward.start("pi-gyro")
        ward.finish()
        ward.stop()
        assert ward.release.read_bytes() == undisturbed.federation.release.read_bytes()
    finally:
        ward.end()


def test_blobs_are_named_by_their_content(undisturbed: Undisturbed) -> None:
    for direction in ("up", "down"):
        for (_, sha256), data in blobs_of(undisturbed.federation, direction).items():
            assert BlobRef(sha256=hashlib.sha256(data).digest(), size_bytes=len(data)).sha256 == sha256
