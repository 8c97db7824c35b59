"""The agent at work: link, sensors, memory and local learning around the agent's state machine.

One thread, the main one, owns all state; link, sensing and learning speak to it through its inbox.
"""

import contextlib
import logging
import queue
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edge import agent
from edge.budget import budget_of
from edge.lessons import Late, Learned, Lesson
from edge.memory import Memory
from edge.protection import Protection
from edge.sensing import Sensing
from edge.settings import DeviceSettings, read_device
from mekt.blobs import ChunkError, Fetch, Serving, blob_ref, proxy_hash, read_chunk
from mekt.database import DamagedStateError
from mekt.errors import SensorError, StateError
from mekt.link import Connected, Disconnected, Link, Received
from mekt.messages import Body, Chunk, Envelope, Offer, Presence, Privacy, Receipt, RoundOpen, Want
from mekt.modality import Modality
from mekt.plan import Architecture, BlobRef, Plan
from mekt.post import Post
from mekt.process import LOOP_S, Job, JobDone, Stop, only_process
from mekt.topics import Topic, for_device
from sensors.settings import open_source

log = logging.getLogger(__name__)

# A device asks for a few chunks at a time: more than this are a flood, and each may be as large as the broker allows.
INBOX_EVENTS = 256
OFFER_S = 5.0
# So much received since it was last looked at is a chunk that comes, however slowly; less may be anything.
ARRIVING_BYTES = 1024
PROGRESS_S = 1.0
STOP_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Enough:
    """Enough private windows have been sensed, by the sensing of this number."""

    sensing: int


def run_edge(config: Path, stop: Stop) -> int:
    """Be the device that the file describes until asked to stop; the exit code.

    Raises:
        MektError: when it cannot start, or its state cannot be kept.
    """
    settings = read_device(config)
    with only_process(config.parent / settings.state) as folder:
        Device(settings, config.parent, folder).run(stop)
    return 0


class Device:
    """One device's agent, its state in `folder`."""

    def __init__(self, settings: DeviceSettings, base: Path, folder: Path) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._settings = settings
        self._budget = budget_of(settings.privacy)
        self._memory = Memory(folder, keeps_budget=self._budget is not None)
        if self._budget is not None and self._memory.progress.trained > agent.NEVER and not self._memory.spent:
            log.warning("knowledge of earlier rounds was shown without noise; no epsilon counts that")
        self._sources = [open_source(each, base) for each in settings.sensors]
        self._sensed: dict[str, Modality] = {each.name: each for source in self._sources for each in source.modalities}
        self._state = agent.AgentState()
        self._plan: Plan | None = None
        # What was announced last, and what this device is at: it may still be learning from an earlier round.
        self._announced: Lesson | None = None
        self._lesson: Lesson | None = None
        self._architectures: dict[str, Architecture] = {}
        self._sensing: Sensing | None = None
        # Sensings and jobs have numbers, so that one that was left behind is not taken for the one at work.
        self._sensings = self._jobs = 0
        self._fetch, self._serving = Fetch(), Serving()
        self._arrived_bytes = 0
        # What was learned for an earlier round, while it is on offer to this one; a restart computes it again.
        self._late_offer: Offer | None = None
        self._late: dict[bytes, bytes] = {}
        self._job: Job | None = None
        self._offered_at_s = 0.0
        self._said: Presence | None = None
        self._said_at_s = 0.0
        self._remarked: set[str] = set()
        self._session = secrets.randbits(52)
        self._inbox: queue.Queue[Any] = queue.Queue(INBOX_EVENTS)
        self._post = Post(settings.federation)
        self._link = Link(
            settings=settings.broker,
            # Names have no colon, so no device's id is another's, of this federation or of one with a like name.
            client_id=f"mekt:{settings.federation}:{settings.device}",
            inbox=self._inbox,
            subscriptions=for_device(settings.federation, settings.device),
            will=self._farewell(),
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
            while not stop.requested:
                with contextlib.suppress(queue.Empty):
                    self._handle(self._inbox.get(timeout=LOOP_S))
                self._on_time(time.monotonic())
        finally:
            if self._job is not None:
                self._job.cancel(STOP_S)
            if self._sensing is not None:
                self._sensing.stop(STOP_S / 2)
            self._link.stop(STOP_S / 2, last=self._farewell())
            self._memory.close()

    # What comes in

    def _handle(self, event: Any) -> None:
        match event:
            case Connected():
                log.info("connected to the broker, MQTT %s", event.protocol)
                self._said = None
                self._advance(agent.OfferDue())
            case Disconnected(reason=reason):
                log.warning("the broker is away: %s", reason)
            case Received():
                envelope = self._post.open(event)
                if envelope is not None:
                    self._receive(envelope)
            case _Enough(sensing=number):
                if number == self._sensings:
                    self._advance(agent.WindowsReady())
            case Late():
                self._made_ready(event)
            case JobDone(name=name):
                # Another one belonged to a plan or a round that this device has left.
                if self._job is not None and name == self._job.name:
                    self._job = None
                    self._on_job(event)
            case _:
                raise AssertionError(f"nobody puts {event!r} into the inbox")

    def _on_job(self, done: JobDone) -> None:
        match done:
            case JobDone(result=Learned() as learned):
                self._learned(learned)
            case JobDone(result=dict() as knowledge):
                self._recalled(knowledge)
            case JobDone(error=StateError() as error):
                raise StateError(f"{self._memory.folder}: {error}", error.entry) from error
            case JobDone(error=error):
                number, sending = self._state.round, self._state.phase == "sending"
                log.error("round %d: no knowledge (%s); this device sits it out", number + 1, error)
                self._advance(agent.KnowledgeLost(round=number) if sending else agent.TrainingFailed(round=number))

    def _receive(self, envelope: Envelope) -> None:
        match envelope.body:
            case RoundOpen() as word:
                self._on_round(envelope.round, word)
            case Chunk() as chunk:
                self._on_chunk(chunk)
            case Want() as want:
                self._on_want(want)
            case Receipt() as receipt:
                self._on_receipt(envelope.round, envelope.proxy, receipt)
            case _:
                self._post.reject("misplaced", f"a {envelope.kind} message is none for a device")

    def _on_round(self, number: int, word: RoundOpen) -> None:
        if not self._adopt(word.plan):
            return
        if word.state != "open":
            self._advance(agent.RoundClosed())
            return
        lesson = Lesson(
            device=self._settings.device,
            round=number,
            plan=word.plan,
            architectures=self._architectures,
            knowledge=word.knowledge,
        )
        problem = lesson.size_problem()
        if problem is not None:
            self._post.reject("unfit-plan", f"round {number + 1}: {problem}")
            self._advance(agent.RoundClosed())
            return
        self._announced = lesson
        if self._lesson is not None and self._state.round == number:
            if self._lesson.refs == lesson.refs:
                self._lesson = lesson
            elif self._state.phase == "fetching":
                self._start_fetch()
            # Whoever announces a round anew has been away, or the broker has: what was asked for may be lost.
            self._fetch.ask_again()
        invited = self._settings.device in word.participants
        self._advance(agent.RoundOpened(round=number, invited=invited, late=word.late == "carry"))

    def _adopt(self, plan: Plan) -> bool:
        """Keep to this plan from now on; False when it has nothing to do with this device."""
        if self._plan is not None and plan.identity == self._plan.identity:
            self._plan = plan
            return True
        shared = [each for each in plan.modalities if each.name in self._sensed]
        for each in shared:
            mine = self._sensed[each.name]
            if (mine.shape, mine.unit) != (each.shape, each.unit):
                self._post.reject(
                    "unfit-plan",
                    f"{each.name}: sensed as {mine.shape} in {mine.unit}, the federation wants {each.shape} in "
                    f"{each.unit}; correct the sensor's settings or the federation's",
                )
                return False
        if not shared:
            self._post.reject(
                "unfit-plan", f"the federation learns {', '.join(plan.scaling)}; this device senses none of them"
            )
            return False
        return self._begin(plan, shared)

    def _begin(self, plan: Plan, shared: list[Modality]) -> bool:
        """Turn to another plan; False, and all is as before, when it cannot be followed."""
        wanted, number = self._settings.windows, self._sensings + 1
        try:
            sensing = Sensing(
                self._sources,
                shared,
                plan.window,
                capacity=wanted.capacity,
                least=wanted.least,
                whole_source=wanted.whole_source,
                enough=lambda: self._inbox.put(_Enough(sensing=number)),
            )
        except SensorError as error:
            self._post.reject("unfit-plan", f"the federation's plan cannot be followed here: {error}")
            return False
        if self._job is not None:
            self._job.cancel(STOP_S)
            self._job = None
        former = self._sensing
        if former is not None:
            former.stop(0.0)
        chosen = self._settings.architectures
        self._architectures = {each.name: chosen.get(each.name, "conv") for each in shared}
        self._plan, self._announced, self._lesson = plan, None, None
        self._sensing, self._sensings = sensing, number
        self._post.proxy = proxy_hash(plan.proxy)
        self._fetch.forget()
        self._late, self._late_offer = {}, None
        self._memory.begin(self._model_name(plan))
        known = self._memory.progress
        self._state = agent.AgentState(trained=known.trained, delivered=known.delivered, kept=self._memory.rounds())
        there, mine = ", ".join(plan.proxy), ", ".join(self._architectures)
        log.info("the federation learns from %s; this device has %s", there, mine)
        sensing.start(after=former)
        return True

    def _model_name(self, plan: Plan) -> str:
        """All that this device's model depends on."""
        encoders = (f"{name}={kind}" for name, kind in sorted(self._architectures.items()))
        return " ".join([plan.identity, *encoders])

    def _on_chunk(self, chunk: Chunk) -> None:
        try:
            data = self._fetch.take(chunk)
        except ChunkError as error:
            self._post.reject(error.trouble, str(error))
            return
        if data is not None:
            self._memory.blobs.put(data)
            self._check_fetched()

    def _check_fetched(self) -> None:
        """Go on when all is there. Whether it is what the plan says, learning finds out, off this thread."""
        if self._lesson is not None and not self._fetch.wanted:
            self._advance(agent.Fetched(round=self._lesson.round))

    def _on_want(self, want: Want) -> None:
        data = self._late.get(want.sha256) or self._memory.knowledge(want.sha256)
        if data is None and self._state.phase == "sending" and self._memory.offer(self._state.round) is None:
            # It was offered and has been lost since.
            self._advance(agent.OfferDue())
            return
        if data is None:
            asked = want.sha256.hex()[:12]
            self._post.reject("unknown-blob", f"the coordinator asks for {asked}, which is not offered")
            return
        ref = BlobRef(sha256=want.sha256, size_bytes=len(data))
        topic = Topic(federation=self._settings.federation, direction="up", kind="chunk", device=self._settings.device)
        for index in self._serving.due("coordinator", ref, want, self._link.leaving(str(topic))):
            chunk = read_chunk(data, ref, index)
            if chunk is not None:
                self._send(chunk)

    def _on_receipt(self, number: int, proxy: bytes, receipt: Receipt) -> None:
        late = receipt.age > 0
        expected = self._state.offers_late if late else self._state.phase == "sending"
        if not expected or number != self._state.round:
            return
        if proxy != self._post.proxy:
            # A broker keeps messages for days, and the federation may have begun anew since.
            self._post.reject("other-proxy-set", f"round {number + 1}: a receipt about another proxy set")
            return
        if receipt.state == "refused":
            log.warning("round %d: the coordinator refuses what was offered: %r", number + 1, receipt.reason)
        self._memory.delivered(self._state.trained if late else number)
        self._advance(agent.Receipted(round=number, late=late))

    def _made_ready(self, late: Late) -> None:
        number, age = late.round, late.round - self._state.trained
        former = self._memory.offer(self._state.trained)
        if former is None or age <= 0:
            return
        self._late = {blob_ref(data).sha256: data for data in late.knowledge.values()}
        refs = {name: blob_ref(data) for name, data in late.knowledge.items()}
        self._late_offer = replace(former, knowledge=refs, age=age)
        self._advance(agent.LateReady(round=number))

    def _learned(self, learned: Learned) -> None:
        for name in learned.remarks.keys() - self._remarked:
            self._remarked.add(name)
            log.warning("%s", learned.remarks[name])
        metrics = {"reconstruction": learned.loss.reconstruction, "transfer": learned.loss.transfer}
        if learned.cost:
            # They are of private windows, and under no noise.
            metrics = {}
        self._memory.trained(learned.round, learned.weights, learned.knowledge, learned.windows, metrics, learned.cost)
        self._late, self._late_offer = {}, None
        log.info(
            "round %d: learned from %d windows, reconstruction %.4f, transfer %.4f",
            learned.round + 1,
            learned.windows,
            learned.loss.reconstruction,
            learned.loss.transfer,
        )
        self._advance(agent.Trained(round=learned.round))

    def _recalled(self, knowledge: dict[str, bytes]) -> None:
        """Keep knowledge that was lost. Another processor or torch may have computed it to other bytes."""
        self._memory.recalled(self._memory.progress.trained, knowledge)
        self._advance(agent.OfferDue())

    # What follows

    def _advance(self, event: agent.Event) -> None:
        self._state, commands = agent.advance(self._state, event)
        for command in commands:
            match command:
                case agent.StartFetch():
                    self._start_fetch()
                case agent.StartTraining(late=late):
                    self._start_training(late)
                case agent.SendOffer(round=number):
                    self._send_offer(number)
                case agent.SendLateOffer(round=number):
                    self._send_late_offer(number)

    def _start_fetch(self) -> None:
        lesson = self._announced
        assert lesson is not None, "a round opens by an announcement"
        self._lesson = lesson
        self._fetch.forget()
        self._memory.blobs.keep_only(frozenset(ref.sha256 for ref in lesson.refs))
        for ref in lesson.refs:
            if self._memory.blobs.get(ref) is None:
                self._fetch.want(ref)
        self._check_fetched()

    def _start_training(self, late: bool) -> None:
        lesson, sensing = self._lesson, self._sensing
        assert lesson is not None and sensing is not None, "learning needs a plan"
        windows, weights, blobs = sensing.arrays(), self._weights(), self._memory.blobs
        protection = None
        if self._budget is not None:
            cost = self._budget.cost(lesson.plan, len(windows))
            protection = Protection(mechanism=self._budget.settings.mechanism, cost=cost)
            # What was learned before would be shown once more, of other views: at the price of another round.
            late = False
            if not self._budget.allows(self._memory.spent, cost):
                refusal = self._budget.refusal(self._memory.spent, cost)
                log.warning("round %d: %s; this device sits it out", lesson.round + 1, refusal)
                self._advance(agent.TrainingFailed(round=lesson.round))
                return

        def work(progress: Callable[[int, int], None]) -> Learned:
            if late and weights is not None:
                self._inbox.put(Late(round=lesson.round, knowledge=lesson.recall(weights, blobs)))
            return lesson.learn(windows, weights, blobs, progress, protection)

        self._start_job(work)

    def _weights(self) -> bytes | None:
        """This device's model. One that was damaged on the disk is lost: it learns from the start."""
        try:
            return self._memory.weights()
        except DamagedStateError as error:
            assert self._plan is not None, "weights belong to a plan"
            self._memory.start_afresh(error)
            self._memory.begin(self._model_name(self._plan))
            return None

    def _start_job(self, work: Callable[[Callable[[int, int], None]], Any]) -> None:
        self._jobs += 1
        self._job = Job(f"learning-{self._jobs}", work, self._inbox)

    def _send_offer(self, number: int) -> None:
        self._offered_at_s = time.monotonic()
        offer = self._memory.offer(number)
        if offer is not None:
            self._post.send(offer, "up", device=self._settings.device, round=number)
        elif self._job is None:
            self._recall(number)

    def _recall(self, number: int) -> None:
        """Compute anew what was offered and has since been lost from the disk; only the last round's can be.

        What was shown under noise cannot: it would be shown twice. The round is learned again, and paid for again.
        """
        lesson, blobs = self._announced, self._memory.blobs
        recallable = number == self._memory.progress.trained and self._budget is None
        weights = self._weights() if recallable else None
        if weights is None or lesson is None or lesson.round != number:
            self._advance(agent.KnowledgeLost(round=number))
            return
        log.warning("round %d: the knowledge is lost from the disk; computing it again", number + 1)
        self._start_job(lambda _: lesson.recall(weights, blobs))

    def _send_late_offer(self, number: int) -> None:
        self._offered_at_s = time.monotonic()
        if self._late_offer is not None:
            self._post.send(self._late_offer, "up", device=self._settings.device, round=number)

    def _on_time(self, now_s: float) -> None:
        if self._state.phase == "fetching":
            arrived_bytes = self._link.wire_bytes().down
            if arrived_bytes - self._arrived_bytes >= ARRIVING_BYTES:
                self._arrived_bytes = arrived_bytes
                self._fetch.arriving(now_s)
            for want in self._fetch.due(now_s):
                self._send(want)
        offers = self._state.phase == "sending" or self._state.offers_late
        if offers and now_s - self._offered_at_s >= OFFER_S:
            self._advance(agent.OfferDue())
        if self._link.is_connected:
            self._say_presence(now_s)

    # What goes out

    def _send(self, body: Body) -> None:
        self._post.send(body, "up", device=self._settings.device, round=max(0, self._state.round))

    def _say_presence(self, now_s: float) -> None:
        """Publish the presence when the activity has changed, and now and then how far it has come."""
        wire = self._link.wire_bytes()
        presence = Presence(
            state="online",
            session=self._session,
            activity=self._state.phase,
            progress=0.0 if self._job is None else round(self._job.share_done, 3),
            modalities=self._modalities(),
            windows=0 if self._sensing is None else self._sensing.count,
            up_bytes=wire.up,
            down_bytes=wire.down,
            privacy=self._privacy(),
        )
        said = self._said
        changed = said is None or (said.activity, said.modalities, said.privacy) != (
            presence.activity,
            presence.modalities,
            presence.privacy,
        )
        moved = said is not None and said.progress != presence.progress
        if changed or (moved and now_s - self._said_at_s >= PROGRESS_S):
            self._said, self._said_at_s = presence, now_s
            at = self._state.delivered if self._state.round == agent.NEVER else self._state.round
            self._post.send(presence, "up", device=self._settings.device, round=max(0, at), retain=True)

    def _farewell(self) -> tuple[str, bytes]:
        """What is said when this device is gone: by itself, or by the broker as its last will."""
        presence = Presence(
            state="offline",
            session=self._session,
            activity="idle",
            modalities=self._modalities(),
            privacy=self._privacy(),
        )
        return self._post.seal(presence, "up", device=self._settings.device)

    def _privacy(self) -> Privacy | None:
        """How much of its private data this device has given away, where that is counted."""
        if self._budget is None:
            return None
        cost = None if self._plan is None else self._budget.cost(self._plan, len(self._architectures))
        return self._budget.told(self._memory.spent, cost)

    def _modalities(self) -> dict[str, str]:
        """What this device senses at present, and by which encoder."""
        lost = set() if self._sensing is None else set(self._architectures) - set(self._sensing.modalities)
        return {name: self._settings.architectures.get(name, "conv") for name in sorted(set(self._sensed) - lost)}
