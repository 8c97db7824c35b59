"""The coordinator at work: link, ledger and learner around the round's state machine.

One thread, the main one, owns all state; the link and the learner speak to it through its inbox.
"""

import contextlib
import logging
import queue
import time
from pathlib import Path
from typing import Any

import torch

from coordinator import round as rounds
from coordinator.announcement import Statuses, announcement
from coordinator.closing import Closing
from coordinator.datasets import plan_of, read_datasets
from coordinator.delivery import Whole
from coordinator.downstream import Downstream
from coordinator.intake import Delivered, Intake, Refused
from coordinator.learner import Closed, Learner
from coordinator.ledger import Delivery, Ledger
from coordinator.registrar import registrar_of
from coordinator.resuming import taken_up
from coordinator.settings import FederationSettings, read_federation
from coordinator.shipping import PROMOTION, Shipping
from coordinator.standing import Fleet, listed, status_of
from coordinator.summing import PHASES, STEPS, Summing
from mekt import catalogue
from mekt.blobs import ChunkError, proxy_hash
from mekt.errors import SettingsError, WireError
from mekt.files import BlobStore
from mekt.link import Connected, Disconnected, Link, Received
from mekt.messages import (
    Body,
    Chunk,
    Envelope,
    Fitness,
    Keys,
    Offer,
    Presence,
    Receipt,
    Renewal,
    Request,
    Shares,
    Step,
    Unmasking,
    Want,
)
from mekt.post import Post
from mekt.process import INBOX_EVENTS, LOOP_S, JobDone, Stop, only_process
from mekt.topics import Direction, Topic, for_coordinator

log = logging.getLogger(__name__)

# To the end of a job, and of the link: both together end within what an operator waits for.
STOP_S = 2.0
# Whoever has nothing new to say is not heard for months, and its certificate ends all the same. Not more often: for
# who is away, these words wait at the broker.
REMIND_S = 24 * 3600.0


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
        trust = settings.trust
        self._registrar = None if trust is None else registrar_of(trust, base, settings.federation)
        self._inbox: queue.Queue[Any] = queue.Queue(INBOX_EVENTS)
        self._link = Link(
            settings=settings.broker,
            client_id=f"mekt:{settings.federation}",
            inbox=self._inbox,
            subscriptions=for_coordinator(settings.federation),
        )
        datasets = read_datasets(settings, base)
        log.info(
            "proxy set of %d windows; %d labelled windows of %d classes, %d kept apart for scores",
            datasets.proxy_windows,
            0 if datasets.labelled is None else len(datasets.labelled),
            len(datasets.classes),
            0 if datasets.test is None else len(datasets.test),
        )
        self._ledger = Ledger(folder / "ledger.sqlite")
        self._plan = plan_of(settings, datasets, self._ledger.run)
        self._ledger.adopt(self._plan.identity)
        self._blobs = BlobStore(folder / "blobs")
        learner = Learner(
            federation=settings.federation,
            plan=self._plan,
            datasets=datasets,
            architectures=settings.architectures,
            folder=folder,
            compute=compute,
            sign=None if self._registrar is None else self._registrar.sign_release,
            rules=settings.round,
        )
        self._closing = Closing(
            learner=learner, ledger=self._ledger, blobs=self._blobs, rounds=settings.rounds, inbox=self._inbox
        )
        self._downstream = Downstream(datasets.blobs.values())
        registrar = self._registrar
        self._shipping = Shipping(
            settings,
            base,
            folder,
            downstream=self._downstream,
            sign=None if registrar is None else lambda manifest: registrar.sign("release", manifest),
            revoked=frozenset if registrar is None else lambda: registrar.revoked,
            inbox=self._inbox,
        )
        self._intake = Intake(self._plan, self._rules)
        self._summing = Summing(settings.federation, self._plan, self._ledger) if self._rules.secure else None
        self._state = rounds.RoundState(rounds=settings.rounds, seed=settings.seed, round=self._ledger.rounds_done)
        self._fleet = Fleet(self._plan.proxy)
        self._opened_at_s = self._reminded_at_s = time.monotonic()
        self._announced = False
        self._statuses = Statuses()
        self._post = Post(settings.federation, proxy_hash(self._plan.proxy))
        self._post.use(self._link)
        self._post.sign = None if self._registrar is None else self._registrar.sign

    def run(self, stop: Stop) -> None:
        """Work until asked to stop.

        Raises:
            LinkError: when the broker cannot be reached at first.
            StateError: when the state cannot be read or written.
        """
        try:
            self._link.start()
            knowledge = self._closing.take_up(self._state.round, stop)
            if knowledge is not None:
                self._downstream.publish(knowledge)
                self._take_up()
            while not stop.requested:
                with contextlib.suppress(queue.Empty):
                    self._handle(self._inbox.get(timeout=LOOP_S))
                self._on_time(time.monotonic())
        finally:
            self._closing.leave(STOP_S)
            self._link.stop(STOP_S)
            self._ledger.close()
            self._shipping.close()
            if self._registrar is not None:
                self._registrar.close()

    def _take_up(self) -> None:
        self._state, commands = taken_up(
            self._state, self._rules, self._ledger, self._blobs, self._summing, time.monotonic()
        )
        self._carry_out(commands)

    # What comes in

    def _handle(self, event: Any) -> None:
        match event:
            case Connected():
                log.info("connected to the broker, MQTT %s", event.protocol)
                # It may be a broker that has forgotten everything.
                self._fleet.connected(time.monotonic())
                self._announce()
                self._shipping.announce_again()
                self._statuses.forget()
            case Disconnected(reason=reason):
                log.warning("the broker is away: %s", reason)
            case Received():
                envelope = self._post.open(event)
                if envelope is not None:
                    self._receive(envelope)
            case JobDone(name=name, error=error) if name == PROMOTION:
                self._shipping.promoted(error)
            case JobDone(error=BaseException() as error):
                raise error
            case JobDone(result=(Closed() as closed, knowledge)):
                self._closing.keep(closed)
                self._downstream.publish(knowledge)
                self._advance(rounds.Distilled(round=closed.report.round - 1))
            case _:
                raise AssertionError(f"nobody puts {event!r} into the inbox")

    def _receive(self, envelope: Envelope) -> None:
        device, number, now_s = envelope.device, envelope.round, time.monotonic()
        if self._fleet.is_back(device, envelope.body):
            self._intake.ask_again(device)
        # A wearable says no presence, and what it asks for may come any number of times.
        is_wearable = device in self._shipping and device not in self._fleet
        if not isinstance(envelope.body, Presence | Request | Fitness) and not is_wearable:
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
            case Fitness() as fitness:
                self._on_fitness(device, fitness, now_s)
            case (Keys() | Shares() | Unmasking()) as word if self._summing is not None:
                self._on_step(self._summing, device, number, word)
            case Request() | Renewal() as request if self._registrar is not None:
                way: Direction = "enroll" if isinstance(request, Request) else "down"
                self._post.send(self._registrar.answer(device, request), way, device=device)
            case _:
                self._post.reject("misplaced", f"{device}: a {envelope.kind} message is none of a device's")

    def _on_presence(self, device: str, presence: Presence, now_s: float) -> None:
        try:
            event = self._fleet.told(device, presence, now_s)
        except WireError as error:
            self._post.reject("too-many-devices", str(error))
            return
        if isinstance(event, rounds.DeviceOffline) and presence.state == "online":
            self._post.reject("unfit-device", f"{device}: has none of the modalities {listed(tuple(self._plan.proxy))}")
        if self._fleet.has_twin(device):
            self._post.reject("twin", f"{device}: two processes say that they are it; end one, or rename it")
        if event is not None:
            self._advance(event)
        self._remind(device, now_s)

    def _on_fitness(self, device: str, fitness: Fitness, now_s: float) -> None:
        try:
            self._shipping.heard(device, fitness)
        except WireError as error:
            self._post.reject("too-many-devices", str(error))
            return
        self._remind(device, now_s)

    def _remind(self, device: str, now_s: float) -> None:
        """Tell a device that was heard, or that has nothing to say, when it is time for another certificate."""
        reminder = None if self._registrar is None else self._registrar.reminder(device, now_s)
        if reminder is not None:
            self._answer(device, self._state.round, reminder)

    def _on_step(self, summing: Summing, device: str, number: int, word: Keys | Shares | Unmasking) -> None:
        """A device has taken a step of the secure sum, or says again that it has."""
        is_settled = PHASES[type(word)] in self._state.settled
        outcome = summing.take(device, number, word, self._state)
        step = STEPS[PHASES[type(word)]]
        if isinstance(outcome, Refused):
            self._refuse(device, number, outcome, step)
            return
        self._answer(device, number, Receipt(state="accepted", step=step))
        self._advance(outcome)
        if isinstance(word, Shares) and is_settled:
            # What was dealt to it when that was settled has not come.
            self._deal(summing, device)

    def _deal(self, summing: Summing, device: str) -> None:
        """Give a device the shares that others have sealed to it, if they are there."""
        inbox = summing.inbox(device, self._state)
        if inbox is not None:
            self._answer(device, self._state.round, inbox)

    def _on_offer(self, device: str, number: int, proxy: bytes, offer: Offer) -> None:
        match self._intake.offered(device, number, proxy, offer, self._state):
            case Delivered():
                self._answer(device, number, _accepted(offer))
            case Refused() as refused:
                self._refuse(device, number, refused, "words" if offer.masked else None)
            case None:
                pass

    def _on_chunk(self, device: str, chunk: Chunk) -> None:
        try:
            outcome = self._intake.take(device, chunk, self._state)
        except ChunkError as error:
            self._post.reject(error.trouble, f"{device}: {error}")
            return
        match outcome:
            case Whole():
                self._store(device, outcome)
            case Refused():
                self._refuse(device, self._state.round, outcome, None if self._summing is None else "words")
            case None:
                pass

    def _refuse(self, device: str, number: int, refused: Refused, step: Step | None = None) -> None:
        self._post.reject(refused.trouble, f"{device}: {refused.reason}")
        self._answer(device, number, Receipt(state="refused", age=refused.age, reason=refused.reason[:200], step=step))

    def _store(self, device: str, whole: Whole) -> None:
        number, offer = self._state.round, whole.offer
        refs = {name: self._blobs.put(data) for name, data in whole.blobs.items()}
        self._ledger.deliver(number, Delivery(device=device, windows=offer.windows, knowledge=refs, age=offer.age))
        self._answer(device, number, _accepted(offer))
        since = f", learned {offer.age} round{'s'[: offer.age - 1]} ago" if offer.age else ""
        log.info("round %d: %s delivered %s%s", number + 1, device, listed(tuple(refs)), since)
        if offer.masked:
            self._advance(rounds.StepTaken(device=device, round=number, step="masking"))
        else:
            self._advance(rounds.KnowledgeStored(device=device, round=number, late=offer.age > 0))

    def _on_want(self, device: str, want: Want) -> None:
        topic = Topic(federation=self._post.federation, direction="down", kind="chunk", device=device)
        chunks = self._downstream.chunks(device, want, self._link.leaving(str(topic)))
        if chunks is None:
            self._post.reject("unknown-blob", f"{device}: asks for a blob that is not served, or no more")
            return
        for chunk in chunks:
            self._answer(device, self._state.round, chunk)

    # What follows

    def _on_time(self, now_s: float) -> None:
        self._advance(rounds.Tick())
        for lost in self._fleet.lost(now_s):
            self._advance(lost)
        # While the broker is away, requests would only fill the line that announcements need when it is back.
        if self._link.is_connected:
            for device, want in self._intake.due(now_s):
                self._answer(device, self._state.round, want)
        if not self._announced:
            self._announce()
        self._ship(now_s)
        self._say_status(now_s)
        if now_s - self._reminded_at_s >= REMIND_S:
            self._reminded_at_s = now_s
            for device in sorted({*self._fleet.seen_at_s, *self._shipping.wearables}):
                self._remind(device, now_s)

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
                    self._intake.keep_only(participants)
                    log.info("round %d of %d opens for %s", number + 1, self._state.rounds, listed(participants))
                case rounds.SettleStep() as settled:
                    self._settle(settled)
                case rounds.DistilRound(round=number, devices=devices):
                    self._intake.keep_only(())
                    secret = None if self._summing is None else self._summing.sum(self._state)
                    self._closing.begin(number, devices, self._opened_at_s, secret)
                case rounds.Finish():
                    log.info("all %d rounds are done", self._state.rounds)

    def _settle(self, settled: rounds.SettleStep) -> None:
        assert self._summing is not None, "steps are a secure sum's"
        self._ledger.settle(settled.round, settled.step, settled.devices)
        self._intake.keep_only(())
        step = STEPS[settled.step]
        log.info("round %d, secure sum: %s of %s are there", settled.round + 1, step, listed(settled.devices))
        if settled.step == "sharing":
            for device in self._state.participants:
                self._deal(self._summing, device)

    # What goes out

    def _announce(self) -> None:
        """Say where the round stands, retained for whoever comes later. What cannot be said now is tried again."""
        summing = self._summing.word(self._state) if self._summing is not None and self._state.is_open else None
        word = announcement(self._state, self._rules, self._plan, self._downstream.knowledge, time.monotonic(), summing)
        self._announced = self._post.send(word, "all", round=self._state.round, retain=True)

    def _ship(self, now_s: float) -> None:
        """Say which release wearables are to run, retained, when that has changed."""
        if self._state.phase == "finished" and self._closing.reports:
            self._shipping.rounds_over(self._closing.reports[-1].release)
        self._shipping.on_time(now_s)
        word = self._shipping.due()
        if word is not None and self._post.send(word, "all", retain=True):
            self._shipping.announced(word)

    def _say_status(self, now_s: float) -> None:
        if not self._statuses.may_come(now_s):
            return
        status = status_of(
            self._state,
            self._rules,
            now_s=now_s,
            seen_at_s=self._fleet.seen_at_s,
            share_learned=self._closing.share_done,
            reports=self._closing.reports,
            trouble=self._post.trouble,
            rollout=self._shipping.status,
        )
        if self._statuses.is_due(status, now_s):
            self._post.send(status, "all", round=self._state.round, retain=True)

    def _answer(self, device: str, number: int, body: Body) -> None:
        self._post.send(body, "down", device=device, round=number)


def _accepted(offer: Offer) -> Receipt:
    return Receipt(state="accepted", age=offer.age, step="words" if offer.masked else None)


def _compute(choice: str) -> torch.device:
    if choice == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            'compute: "cuda" is not there for torch; install its CUDA build, or set compute = "cpu"', catalogue.NO_GPU
        )
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)
