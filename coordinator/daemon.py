"""The coordinator at work: link, ledger and learner around the round's state machine.

One thread, the main one, owns all state; the link and the learner speak to it through its inbox.
"""

import contextlib
import logging
import queue
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from coordinator import round as rounds
from coordinator.datasets import plan_of, read_datasets
from coordinator.delivery import Incoming, Unusable, Whole, offer_problem
from coordinator.learner import Closed, Learner
from coordinator.ledger import Delivery, Ledger
from coordinator.settings import FederationSettings, read_federation
from coordinator.signs import news
from coordinator.standing import Fleet, status_of
from mekt import catalogue
from mekt.blobs import ChunkError, Serving, blob_ref, proxy_hash, read_chunk
from mekt.errors import LinkError, SettingsError, WireError
from mekt.files import BlobStore
from mekt.link import Connected, Disconnected, Link, Received
from mekt.messages import (
    Body,
    Chunk,
    Envelope,
    Offer,
    Presence,
    Receipt,
    RoundOpen,
    RoundReport,
    Status,
    Trouble,
    Want,
)
from mekt.plan import BlobRef
from mekt.post import Post
from mekt.process import INBOX_EVENTS, LOOP_S, Job, JobDone, Stop, only_process
from mekt.topics import Topic, for_coordinator

log = logging.getLogger(__name__)

# While a round collects, its status is said again this often, for the times in its text.
STATUS_S = 10.0
# A changed status waits this long for further changes.
STATUS_PACE_S = 0.2
# To the end of a job, and of the link: both together end within what an operator waits for.
STOP_S = 2.0


def run_coordinator(config: Path, stop: Stop) -> int:
    """Coordinate the federation that the file describes until asked to stop; the exit code.

    Raises:
        MektError: when it cannot start, or its state cannot be kept.
    """
    settings = read_federation(config)
    with only_process(config.parent / settings.state) as folder:
        try:
            coordinator = Coordinator(settings, config.parent, folder)
        except SettingsError as error:
            lines = str(error).splitlines()
            raise SettingsError("\n".join(f"{config}: {line}" for line in lines), error.entry) from error
        coordinator.run(stop)
    return 0


class Coordinator:
    """One federation's coordinator, its state in `folder`."""

    def __init__(self, settings: FederationSettings, base: Path, folder: Path) -> None:
        """Read everything; nothing is sent yet.

        Raises:
            MektError: when settings, recordings or state do not allow a start.
        """
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        compute = _compute(settings.compute)
        self._rules = settings.round
        self._inbox: queue.Queue[Any] = queue.Queue(INBOX_EVENTS)
        self._link = Link(
            settings=settings.broker,
            client_id=f"mekt:{settings.federation}",
            inbox=self._inbox,
            subscriptions=for_coordinator(settings.federation),
        )
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
            compute=compute,
            rules=settings.round,
        )
        self._proxy_blobs = {blob_ref(data).sha256: data for data in datasets.blobs.values()}
        self._knowledge: dict[str, BlobRef] = {}
        self._served: dict[bytes, bytes] = {}
        self._serving = Serving()
        self._state = rounds.RoundState(rounds=settings.rounds, seed=settings.seed, round=self._ledger.rounds_done)
        self._fleet = Fleet(self._plan.proxy)
        self._incoming: dict[str, Incoming] = {}
        self._opened_at_s = time.monotonic()
        self._job: Job | None = None
        self._reports: tuple[RoundReport, ...] = ()
        self._announced = False
        self._status: Status | None = None
        self._status_at_s = 0.0
        self._post = Post(settings.federation, proxy_hash(self._plan.proxy))
        self._post.use(self._link)

    def run(self, stop: Stop) -> None:
        """Work until asked to stop.

        Raises:
            LinkError: when the broker cannot be reached at first.
            StateError: when the state cannot be read or written.
        """
        try:
            self._link.start()
            if self._score_first(stop):
                self._resume()
            while not stop.requested:
                with contextlib.suppress(queue.Empty):
                    self._handle(self._inbox.get(timeout=LOOP_S))
                self._on_time(time.monotonic())
        finally:
            if self._job is not None:
                self._job.cancel(STOP_S)
            self._link.stop(STOP_S)
            self._ledger.close()

    def _score_first(self, stop: Stop) -> bool:
        """Make the report of the encoders as they are before the first round, if it is missing; False when stopped."""
        self._learner.restore(self._state.round)
        if self._ledger.reports():
            return True
        log.info("scoring the encoders as they are before the first round")
        done: queue.Queue[JobDone] = queue.Queue()
        self._job = Job("first-scores", lambda _: self._learner.assess(0), done)
        while not stop.requested:
            with contextlib.suppress(queue.Empty):
                outcome = done.get(timeout=LOOP_S)
                self._job = None
                if outcome.error is not None:
                    raise outcome.error
                self._ledger.report(outcome.result)
                return True
        return False

    def _resume(self) -> None:
        """Take up where the ledger says that things stand."""
        number = self._state.round
        self._reports = self._ledger.reports()
        self._serve(self._learner.knowledge(number))
        participants = self._ledger.participants(number)
        if participants is None or number >= self._state.rounds:
            return
        for delivery in self._ledger.deliveries(number):
            if any(self._blobs.get(ref) is None for ref in delivery.knowledge.values()):
                self._ledger.withdraw(number, delivery.device)
        deliveries = self._ledger.deliveries(number)
        received = tuple(delivery.device for delivery in deliveries if not delivery.age)
        late = tuple(delivery.device for delivery in deliveries if delivery.age)
        log.info("round %d of %d goes on; delivered so far: %s", number + 1, self._state.rounds, _listed(received))
        self._state, commands = rounds.resumed(self._state, participants, received, self._rules, time.monotonic(), late)
        self._carry_out(commands)

    # What comes in

    def _handle(self, event: Any) -> None:
        match event:
            case Connected():
                log.info("connected to the broker, MQTT %s", event.protocol)
                # It may be a broker that has forgotten everything.
                self._fleet.connected(time.monotonic())
                self._announce()
                self._status = None
            case Disconnected(reason=reason):
                log.warning("the broker is away: %s", reason)
            case Received():
                envelope = self._post.open(event)
                if envelope is not None:
                    self._receive(envelope)
            case JobDone(error=BaseException() as error):
                raise error
            case JobDone(result=(Closed() as closed, knowledge)):
                self._closed(closed, knowledge)
            case _:
                raise AssertionError(f"nobody puts {event!r} into the inbox")

    def _receive(self, envelope: Envelope) -> None:
        device, number, now_s = envelope.device, envelope.round, time.monotonic()
        if device in self._incoming and self._fleet.is_back(device, envelope.body):
            self._incoming[device].ask_again()
        if not isinstance(envelope.body, Presence):
            trouble = self._fleet.heard(device, envelope.sequence, now_s)
            if trouble is not None:
                self._post.note(trouble)
        match envelope.body:
            case Presence() as presence:
                self._on_presence(device, presence, now_s)
            case Offer() as offer:
                self._on_offer(device, number, envelope.proxy, offer)
            case Chunk() as chunk:
                self._on_chunk(device, chunk)
            case Want() as want:
                self._on_want(device, want)
            case _:
                self._post.reject("misplaced", f"{device}: a {envelope.kind} message is none of a device's")

    def _on_presence(self, device: str, presence: Presence, now_s: float) -> None:
        try:
            event = self._fleet.told(device, presence, now_s)
        except WireError as error:
            self._post.reject("too-many-devices", str(error))
            return
        if isinstance(event, rounds.DeviceOffline) and presence.state == "online":
            self._post.reject(
                "unfit-device", f"{device}: has none of the modalities {_listed(tuple(self._plan.proxy))}"
            )
        if self._fleet.has_twin(device):
            self._post.reject("twin", f"{device}: two processes say that they are it; end one, or rename it")
        if event is not None:
            self._advance(event)

    def _on_offer(self, device: str, number: int, proxy: bytes, offer: Offer) -> None:
        state, age = self._state, offer.age
        if number == state.round and (device in state.received or (age > 0 and device in state.late)):
            self._answer(device, number, age, "accepted")
            return
        refusal = self._refusal(device, number, proxy, offer)
        if refusal is not None:
            self._refuse(device, number, age, *refusal)
            return
        known = self._incoming.get(device)
        if known is None or known.offer.knowledge != offer.knowledge:
            self._incoming[device] = Incoming(offer, self._plan)

    def _refusal(self, device: str, number: int, proxy: bytes, offer: Offer) -> tuple[Trouble, str] | None:
        """Why this offer is not taken, or None."""
        state = self._state
        if number < state.round or (number == state.round and state.phase == "distilling"):
            return "old-round", f"round {number + 1} is over"
        if number > state.round:
            return "early-round", f"round {number + 1} has not begun"
        if device not in state.participants:
            return "uninvited", f"{device} takes no part in round {number + 1}"
        if proxy != self._post.proxy:
            return "other-proxy-set", "it is about another proxy set"
        if offer.age > 0 and not self._rules.takes_late:
            return "old-round", "it was learned for an earlier round, and this federation drops such knowledge"
        problem = offer_problem(offer, self._plan)
        return None if problem is None else ("unfit-offer", problem)

    def _on_chunk(self, device: str, chunk: Chunk) -> None:
        incoming = self._incoming.get(device)
        if incoming is None:
            # What was asked for twice may come twice, also when all is there.
            if device not in self._state.delivered:
                self._post.reject("unasked-chunk", f"{device}: a chunk came that nobody asked for")
            return
        try:
            outcome = incoming.take(chunk)
        except ChunkError as error:
            self._post.reject(error.trouble, f"{device}: {error}")
            return
        match outcome:
            case Whole():
                del self._incoming[device]
                self._store(device, outcome)
            case Unusable(reason=reason):
                del self._incoming[device]
                self._refuse(device, self._state.round, incoming.offer.age, "unfit-offer", reason)
            case None:
                pass

    def _refuse(self, device: str, number: int, age: int, trouble: Trouble, reason: str) -> None:
        self._post.reject(trouble, f"{device}: {reason}")
        self._answer(device, number, age, "refused", reason)

    def _store(self, device: str, whole: Whole) -> None:
        number, offer = self._state.round, whole.offer
        refs = {name: self._blobs.put(data) for name, data in whole.blobs.items()}
        self._ledger.deliver(number, Delivery(device=device, windows=offer.windows, knowledge=refs, age=offer.age))
        self._answer(device, number, offer.age, "accepted")
        since = f", learned {offer.age} round{'s'[: offer.age - 1]} ago" if offer.age else ""
        log.info("round %d: %s delivered %s%s", number + 1, device, _listed(tuple(refs)), since)
        self._advance(rounds.KnowledgeStored(device=device, round=number, late=offer.age > 0))

    def _on_want(self, device: str, want: Want) -> None:
        data = self._served.get(want.sha256)
        if data is None:
            self._post.reject("unknown-blob", f"{device}: asks for a blob that is not served, or no more")
            return
        ref = BlobRef(sha256=want.sha256, size_bytes=len(data))
        topic = Topic(federation=self._post.federation, direction="down", kind="chunk", device=device)
        for index in self._serving.due(device, ref, want, self._link.leaving(str(topic))):
            chunk = read_chunk(data, ref, index)
            if chunk is not None:
                self._send(chunk, device)

    # What follows

    def _on_time(self, now_s: float) -> None:
        self._advance(rounds.Tick())
        for lost in self._fleet.lost(now_s):
            self._advance(lost)
        # While the broker is away, requests would only fill the line that announcements need when it is back.
        if self._link.is_connected:
            for device, incoming in self._incoming.items():
                for want in incoming.due(now_s):
                    self._send(want, device)
        if not self._announced:
            self._announce()
        self._say_status(now_s)

    def _advance(self, event: rounds.Event) -> None:
        before = self._state.phase
        self._state, commands = rounds.advance(self._state, event, self._rules, time.monotonic())
        self._carry_out(commands)
        if commands or self._state.phase != before:
            self._announce()

    def _carry_out(self, commands: tuple[rounds.Command, ...]) -> None:
        for command in commands:
            match command:
                case rounds.OpenRound(round=number, participants=participants):
                    self._ledger.open_round(number, participants)
                    self._opened_at_s = time.monotonic()
                    # A round that opens anew goes on with what is on its way.
                    self._incoming = {name: each for name, each in self._incoming.items() if name in participants}
                    log.info("round %d of %d opens for %s", number + 1, self._state.rounds, _listed(participants))
                case rounds.DistilRound(round=number, devices=devices):
                    # Whatever happens from now on, also a restart: the round is learned from these and no other.
                    self._ledger.collected(number, devices)
                    self._incoming.clear()
                    log.info("round %d: learning from %s", number + 1, _listed(devices))
                    self._job = Job(f"round-{number}", self._closing(number), self._inbox)
                case rounds.Finish():
                    log.info("all %d rounds are done", self._state.rounds)

    def _closing(self, number: int) -> Callable[[Callable[[int, int], None]], tuple[Closed, dict[str, bytes]]]:
        deliveries, standings = self._ledger.deliveries(number), self._ledger.standings()
        collect_s = time.monotonic() - self._opened_at_s

        def work(progress: Callable[[int, int], None]) -> tuple[Closed, dict[str, bytes]]:
            closed = self._learner.close_round(number, deliveries, self._blobs, progress, collect_s, standings)
            return closed, self._learner.knowledge(number + 1)

        return work

    def _closed(self, closed: Closed, knowledge: dict[str, bytes]) -> None:
        self._job, report = None, closed.report
        for line in news(self._reports, report):
            log.warning("%s", line)
        self._ledger.report(report, closed.standings)
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
            late=self._rules.late,
            participants=state.participants,
            plan=self._plan,
            knowledge=self._knowledge,
        )
        try:
            topic, raw = self._post.seal(body, "all", round=state.round)
            self._link.publish(topic, raw, retain=True)
            self._announced = True
        except (WireError, LinkError) as error:
            # Nobody would ask for it again.
            self._announced = False
            self._post.reject("not-sent", f"not sent: {error}")

    def _answer(self, device: str, number: int, age: int, verdict: Any, reason: str = "") -> None:
        self._post.send(Receipt(state=verdict, age=age, reason=reason[:200]), "down", device=device, round=number)

    def _send(self, body: Body, device: str) -> None:
        self._post.send(body, "down", device=device, round=self._state.round)

    def _say_status(self, now_s: float) -> None:
        """Publish the status when more than its words has changed, and now and then for these."""
        if self._status is not None and now_s - self._status_at_s < STATUS_PACE_S:
            return
        status = status_of(
            self._state,
            self._rules,
            now_s=now_s,
            seen_at_s=self._fleet.seen_at_s,
            share_learned=0.0 if self._job is None else self._job.share_done,
            reports=self._reports,
            trouble=self._post.trouble,
        )
        known = self._status
        changed = known is None or replace(known, text=status.text, trouble=status.trouble) != status
        if changed or (now_s - self._status_at_s >= STATUS_S and status != known):
            self._status, self._status_at_s = status, now_s
            self._post.send(status, "all", round=self._state.round, retain=True)


def _compute(choice: str) -> torch.device:
    if choice == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            'compute: "cuda" is not there for torch; install its CUDA build, or set compute = "cpu"', catalogue.NO_GPU
        )
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nobody"
