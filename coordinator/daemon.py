"""The coordinator at work: link, ledger and learner around the round's state machine.

One thread, the main one, owns all state; the link and the learner speak to it through its inbox.
"""

import contextlib
import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from coordinator import round as rounds
from coordinator.datasets import plan_of, read_datasets
from coordinator.delivery import Incoming, Unusable, Whole, offer_problem
from coordinator.learner import Learner
from coordinator.ledger import Delivery, Ledger
from coordinator.settings import FederationSettings, read_federation
from coordinator.standing import status_of
from mekt.blobs import CHUNKS_IN_FLIGHT, blob_ref, proxy_hash, read_chunk
from mekt.errors import SettingsError, WireError
from mekt.files import BlobStore
from mekt.link import Connected, Disconnected, Link, Received
from mekt.messages import Body, Chunk, Envelope, Offer, Presence, Receipt, RoundOpen, RoundReport, Status, Want
from mekt.plan import BlobRef
from mekt.post import Post
from mekt.process import INBOX_EVENTS, LOOP_S, Job, JobDone, Stop, only_process
from mekt.topics import for_coordinator

log = logging.getLogger(__name__)

MOST_DEVICES = 4096
# While a round collects, its status is said again this often, for the times in its text.
STATUS_S = 10.0
STOP_S = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """A device's last word and when it came, in monotonic seconds."""

    presence: Presence
    at_s: float


def run_coordinator(config: Path, stop: Stop) -> int:
    """Coordinate the federation that the file describes until asked to stop; the exit code.

    Raises:
        MektError: when it cannot start, or its state cannot be kept.
    """
    settings = read_federation(config)
    with only_process(config.parent / settings.state) as folder:
        Coordinator(settings, config.parent, folder).run(stop)
    return 0


class Coordinator:
    """One federation's coordinator, its state in `folder`."""

    def __init__(self, settings: FederationSettings, base: Path, folder: Path) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._rules = settings.round
        datasets = read_datasets(settings, base)
        self._ledger = Ledger(folder / "ledger.sqlite")
        self._plan = plan_of(settings, datasets, self._ledger.run)
        self._ledger.adopt(self._plan.identity)
        self._blobs = BlobStore(folder / "blobs")
        self._learner = Learner(
            federation=settings.federation,
            plan=self._plan,
            datasets=datasets,
            architectures=settings.architectures,
            folder=folder,
            compute=_compute(settings.compute),
        )
        self._proxy_blobs = {blob_ref(data).sha256: data for data in datasets.blobs.values()}
        self._knowledge: dict[str, BlobRef] = {}
        self._served: dict[bytes, bytes] = {}
        self._state = rounds.RoundState(rounds=settings.rounds, seed=settings.seed, round=self._ledger.rounds_done)
        self._devices: dict[str, _Seen] = {}
        self._incoming: dict[str, Incoming] = {}
        self._opened_at_s = time.monotonic()
        self._job: Job | None = None
        self._reports: tuple[RoundReport, ...] = ()
        self._status: Status | None = None
        self._status_at_s = 0.0
        self._inbox: queue.Queue[Any] = queue.Queue(INBOX_EVENTS)
        self._post = Post(settings.federation, proxy_hash(self._plan.proxy))
        self._link = Link(
            settings=settings.broker,
            client_id=f"mekt-{settings.federation}-coordinator",
            inbox=self._inbox,
            subscriptions=for_coordinator(settings.federation),
        )
        self._post.use(self._link)

    def run(self, stop: Stop) -> None:
        """Work until asked to stop.

        Raises:
            LinkError: when the broker cannot be reached at first.
            StateError: when the state cannot be read or written.
        """
        self._link.start()
        try:
            self._resume()
            while not stop.requested:
                with contextlib.suppress(queue.Empty):
                    self._handle(self._inbox.get(timeout=LOOP_S))
                self._on_time(time.monotonic())
        finally:
            if self._job is not None:
                self._job.cancel(STOP_S)
            self._link.stop()
            self._ledger.close()

    def _resume(self) -> None:
        """Take up where the ledger says that things stand."""
        number = self._state.round
        self._learner.restore(number)
        if not self._ledger.reports():
            log.info("scoring the encoders as they are before the first round")
            self._ledger.report(self._learner.assess(0))
        self._reports = self._ledger.reports()
        self._serve(self._learner.knowledge())
        participants = self._ledger.participants(number)
        if participants is None or number >= self._state.rounds:
            return
        for delivery in self._ledger.deliveries(number):
            if any(self._blobs.get(ref) is None for ref in delivery.knowledge.values()):
                self._ledger.withdraw(number, delivery.device)
        received = tuple(delivery.device for delivery in self._ledger.deliveries(number))
        log.info("round %d of %d goes on; delivered so far: %s", number + 1, self._state.rounds, _listed(received))
        self._state, commands = rounds.resumed(self._state, participants, received, self._rules, time.monotonic())
        self._carry_out(commands)

    # What comes in

    def _handle(self, event: Any) -> None:
        match event:
            case Connected():
                log.info("connected to the broker, MQTT %s", event.protocol)
                self._announce()
                self._say_status(time.monotonic())
            case Disconnected(reason=reason):
                log.warning("the broker is away: %s", reason)
            case Received():
                envelope = self._post.open(event)
                if envelope is not None:
                    self._receive(envelope)
            case JobDone(error=BaseException() as error):
                raise error
            case JobDone(result=(RoundReport() as report, knowledge)):
                self._closed(report, knowledge)
            case _:
                raise AssertionError(f"nobody puts {event!r} into the inbox")

    def _receive(self, envelope: Envelope) -> None:
        device, number = envelope.device, envelope.round
        match envelope.body:
            case Presence() as presence:
                self._on_presence(device, presence)
            case Offer() as offer:
                self._seen(device)
                self._on_offer(device, number, envelope.proxy, offer)
            case Chunk() as chunk:
                self._seen(device)
                self._on_chunk(device, chunk)
            case Want() as want:
                self._seen(device)
                self._on_want(device, want)
            case _:
                self._post.reject(f"{device}: a {envelope.kind} message is none of a device's")

    def _on_presence(self, device: str, presence: Presence) -> None:
        known = self._devices.get(device)
        if presence.state == "offline":
            # The will of an earlier connection may come behind the device's return.
            if known is None or known.presence.session != presence.session:
                return
            self._devices[device] = _Seen(presence=presence, at_s=known.at_s)
            self._advance(rounds.DeviceOffline(device=device))
            return
        if known is None and len(self._devices) >= MOST_DEVICES:
            self._post.reject(f"more than {MOST_DEVICES} devices; start another federation for the rest")
            return
        self._devices[device] = _Seen(presence=presence, at_s=time.monotonic())
        if set(presence.modalities) & set(self._plan.proxy):
            self._advance(rounds.DeviceOnline(device=device))
        else:
            self._post.reject(f"{device}: has none of the modalities {_listed(tuple(self._plan.proxy))}")

    def _seen(self, device: str) -> None:
        known = self._devices.get(device)
        if known is not None:
            self._devices[device] = _Seen(presence=known.presence, at_s=time.monotonic())

    def _on_offer(self, device: str, number: int, proxy: bytes, offer: Offer) -> None:
        state = self._state
        if number < state.round or (number == state.round and state.phase != "collecting"):
            if number == state.round and device in state.received:
                self._answer(device, number, "accepted")
            else:
                self._answer(device, number, "refused", f"round {number + 1} is over")
            return
        if number > state.round or device not in state.participants:
            self._answer(device, number, "refused", f"{device} takes no part in round {number + 1}")
            return
        if device in state.received:
            self._answer(device, number, "accepted")
            return
        problem = offer_problem(offer, self._plan) if proxy == self._post.proxy else "it is about another proxy set"
        if problem is not None:
            self._refuse(device, number, problem)
            return
        known = self._incoming.get(device)
        if known is None or known.offer.knowledge != offer.knowledge:
            self._incoming[device] = Incoming(offer, self._plan)

    def _on_chunk(self, device: str, chunk: Chunk) -> None:
        incoming = self._incoming.get(device)
        if incoming is None:
            return
        try:
            outcome = incoming.take(chunk)
        except WireError as error:
            self._post.reject(f"{device}: {error}")
            return
        match outcome:
            case Whole():
                del self._incoming[device]
                self._store(device, outcome)
            case Unusable(reason=reason):
                del self._incoming[device]
                self._refuse(device, self._state.round, reason)
            case None:
                pass

    def _refuse(self, device: str, number: int, reason: str) -> None:
        self._post.reject(f"{device}: {reason}")
        self._answer(device, number, "refused", reason)

    def _store(self, device: str, whole: Whole) -> None:
        number = self._state.round
        refs = {name: self._blobs.put(data) for name, data in whole.blobs.items()}
        self._ledger.deliver(number, Delivery(device=device, windows=whole.offer.windows, knowledge=refs))
        self._answer(device, number, "accepted")
        log.info("round %d: %s delivered %s", number + 1, device, _listed(tuple(refs)))
        self._advance(rounds.KnowledgeStored(device=device, round=number))

    def _on_want(self, device: str, want: Want) -> None:
        data = self._served.get(want.sha256)
        if data is None:
            return
        for index in want.chunks[:CHUNKS_IN_FLIGHT]:
            chunk = read_chunk(data, BlobRef(sha256=want.sha256, size_bytes=len(data)), index)
            if chunk is not None:
                self._send(chunk, device)

    # What follows

    def _on_time(self, now_s: float) -> None:
        self._advance(rounds.Tick())
        for device, incoming in self._incoming.items():
            for want in incoming.due(now_s):
                self._send(want, device)
        self._say_status(now_s)

    def _advance(self, event: rounds.Event) -> None:
        self._state, commands = rounds.advance(self._state, event, self._rules, time.monotonic())
        self._carry_out(commands)

    def _carry_out(self, commands: tuple[rounds.Command, ...]) -> None:
        for command in commands:
            match command:
                case rounds.OpenRound(round=number, participants=participants):
                    self._ledger.open_round(number, participants)
                    self._opened_at_s = time.monotonic()
                    self._incoming.clear()
                    log.info("round %d of %d opens for %s", number + 1, self._state.rounds, _listed(participants))
                case rounds.DistilRound(round=number):
                    self._incoming.clear()
                    log.info("round %d: learning from %s", number + 1, _listed(self._state.received))
                    self._job = Job(f"round-{number}", self._closing(number), self._inbox)
                case rounds.Finish():
                    log.info("all %d rounds are done", self._state.rounds)
            self._announce()

    def _closing(self, number: int) -> Callable[[Callable[[int, int], None]], tuple[RoundReport, dict[str, bytes]]]:
        deliveries = self._ledger.deliveries(number)
        collect_s = time.monotonic() - self._opened_at_s

        def work(progress: Callable[[int, int], None]) -> tuple[RoundReport, dict[str, bytes]]:
            report = self._learner.close_round(number, deliveries, self._blobs, progress, collect_s)
            return report, self._learner.knowledge()

        return work

    def _closed(self, report: RoundReport, knowledge: dict[str, bytes]) -> None:
        self._job = None
        self._ledger.report(report)
        self._reports = self._ledger.reports()
        log.info(
            "after round %d of %d: %s",
            report.round,
            self._state.rounds,
            ", ".join(f"{name} {value:.3f}" for name, value in report.metrics.items()),
        )
        self._serve(knowledge)
        self._blobs.keep_only(frozenset())
        self._advance(rounds.Distilled(round=report.round - 1))

    def _serve(self, knowledge: dict[str, bytes]) -> None:
        """Have these blobs and the proxy set ready for devices that ask."""
        self._knowledge = {name: blob_ref(data) for name, data in knowledge.items()}
        fresh = {self._knowledge[name].sha256: data for name, data in knowledge.items()}
        self._served = self._proxy_blobs | fresh

    # What goes out

    def _announce(self) -> None:
        """Say where the round stands, retained for whoever comes later."""
        state = self._state
        standing = {"collecting": "open", "finished": "finished"}
        body = RoundOpen(
            state=standing.get(state.phase, "closed"),  # type: ignore[arg-type]
            deadline_s=max(0.0, state.deadline_at_s - time.monotonic()) if state.phase == "collecting" else 0.0,
            participants=state.participants,
            plan=self._plan,
            knowledge=self._knowledge,
        )
        self._post.send(body, "all", round=state.round, retain=True)

    def _answer(self, device: str, number: int, verdict: Any, reason: str = "") -> None:
        self._post.send(Receipt(state=verdict, reason=reason[:200]), "down", device=device, round=number)

    def _send(self, body: Body, device: str) -> None:
        self._post.send(body, "down", device=device, round=self._state.round)

    def _say_status(self, now_s: float) -> None:
        """Publish the status when more than its words has changed, and now and then for these."""
        status = status_of(
            self._state,
            self._rules,
            now_s=now_s,
            seen_at_s={device: seen.at_s for device, seen in self._devices.items()},
            share_learned=0.0 if self._job is None else self._job.share_done,
            reports=self._reports,
        )
        known = self._status
        changed = known is None or replace(known, text=status.text) != status
        if changed or (now_s - self._status_at_s >= STATUS_S and status != known):
            self._status, self._status_at_s = status, now_s
            self._post.send(status, "all", round=self._state.round, retain=True)


def _compute(choice: str) -> torch.device:
    if choice == "cuda" and not torch.cuda.is_available():
        raise SettingsError('compute: "cuda" is not there for torch; install its CUDA build, or set compute = "cpu"')
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nobody"
