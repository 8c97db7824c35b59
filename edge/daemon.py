"""The agent at work: link, sensors, memory and local learning around the agent's state machine.

One thread, the main one, owns all state; link, sensing and learning speak to it through its inbox.
"""

import contextlib
import logging
import queue
import secrets
import time
from pathlib import Path
from typing import Any

import torch

from edge import agent
from edge.audit import Audit
from edge.budget import budget_of
from edge.course import Course, Enough, UnfitPlanError, sensed_by
from edge.fetching import Fetching
from edge.lessons import Late, Learned, Lesson
from edge.memory import Memory
from edge.presence import Presences
from edge.renewal import Certificate
from edge.secrecy import Secrecy
from edge.settings import DeviceSettings, read_device
from edge.study import Study
from edge.upstream import Upstream
from mekt.blobs import ChunkError, proxy_hash
from mekt.errors import MissingPackageError, StateError, WireError
from mekt.identity import KeptTrust
from mekt.link import Connected, Disconnected, Link, Received
from mekt.masks import check_package
from mekt.messages import Answer, Body, Chunk, Envelope, Offer, Receipt, RoundOpen, Shares, Summing, Want
from mekt.plan import Plan
from mekt.post import Post
from mekt.process import LOOP_S, JobDone, Stop, only_process
from mekt.topics import Topic, for_device
from sensors.seal import Seal, seal_of

log = logging.getLogger(__name__)

# A device asks for a few chunks at a time: more than this are a flood, and each may be as large as the broker allows.
INBOX_EVENTS = 256
STOP_S = 2.0


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
        self._inbox: queue.Queue[Any] = queue.Queue(INBOX_EVENTS)
        budget = budget_of(settings.privacy)
        self._memory = Memory(folder, keeps_budget=budget is not None)
        self._sources = [each.source(base) for each in settings.sensors]
        self._windows, key_file = folder / "windows", settings.windows.key_file
        # Made at the start, so that a key that cannot be used is told then.
        self._seal: Seal | None = None
        if settings.windows.encrypt:
            self._seal = seal_of(folder / "windows.key", None if key_file is None else base / key_file)
        self._state = agent.AgentState()
        self._course: Course | None = None
        # What was announced last, and what this device is at: it may still be learning from an earlier round.
        self._announced: Lesson | None = None
        self._lesson: Lesson | None = None
        self._fetching = Fetching(self._memory.blobs)
        self._study = Study(self._memory, self._inbox, budget)
        self._upstream = Upstream(self._memory)
        # Where the announced round's secure sum stands; None where knowledge is shown as it is.
        self._summing: Summing | None = None
        self._secrecy = Secrecy(settings.federation, settings.device, self._memory)
        if settings.sums_only:
            check_package()
            self._upstream.masked = {}
        sensed = {name: settings.architecture(name) for name in sensed_by(self._sources)}
        self._presences = Presences(secrets.randbits(52), sensed)
        self._certificate = Certificate(settings.device, settings.broker.tls)
        self._post = Post(settings.federation)
        self._trust: KeptTrust | None = None
        if settings.trust is not None:
            self._trust = KeptTrust(base / settings.trust.coordinator, folder / "newest-round")
            self._post.trust = self._trust.trust
        elif not settings.broker.is_local:
            log.warning("ANNOUNCEMENTS ARE NOT CHECKED: who has the broker can make them; add [trust] coordinator")
        self._audit = Audit(folder, settings.device)
        self._link = Link(
            settings=settings.broker,
            # Names have no colon, so no device's id is another's, of this federation or of one with a like name.
            client_id=f"mekt:{settings.federation}:{settings.device}",
            inbox=self._inbox,
            subscriptions=for_device(settings.federation, settings.device),
            will=self._farewell(),
            witness=self._audit,
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
            self._study.leave(STOP_S)
            if self._course is not None:
                self._course.sensing.stop(STOP_S / 2)
            self._link.stop(STOP_S / 2, last=self._farewell())
            self._audit.close()
            self._memory.close()

    # What comes in

    def _handle(self, event: Any) -> None:
        match event:
            case Connected():
                log.info("connected to the broker, MQTT %s", event.protocol)
                self._presences.forget()
                self._advance(agent.OfferDue())
            case Disconnected(reason=reason):
                log.warning("the broker is away: %s", reason)
            case Received():
                envelope = self._post.open(event)
                if envelope is not None:
                    self._receive(envelope)
            case Enough(course=course):
                if course is self._course:
                    self._advance(agent.WindowsReady())
            case Late():
                if self._upstream.make_ready(event):
                    self._advance(agent.LateReady(round=event.round))
            case JobDone():
                if self._study.has_ended(event):
                    self._on_job(event)
            case _:
                raise AssertionError(f"nobody puts {event!r} into the inbox")

    def _on_job(self, done: JobDone) -> None:
        match done:
            case JobDone(result=Learned() as learned):
                self._study.keep(learned)
                self._upstream.forget_late()
                self._advance(agent.Trained(round=learned.round))
            case JobDone(result=dict() as knowledge):
                self._study.keep_recalled(knowledge)
                self._advance(agent.OfferDue())
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
            case Shares() as shares:
                self._on_shares(envelope.round, shares)
            case Answer() as answer:
                renewal = self._certificate.answered(answer)
                if renewal is not None:
                    self._send(renewal, self._state.latest)
            case _:
                self._post.reject("misplaced", f"a {envelope.kind} message is none for a device")

    def _on_round(self, number: int, word: RoundOpen) -> None:
        if self._trust is not None:
            self._trust.keep()
        try:
            course = self._follow(word.plan)
        except UnfitPlanError as error:
            self._post.reject("unfit-plan", str(error))
            return
        if word.state != "open":
            self._advance(agent.RoundClosed())
            return
        lesson = course.lesson(number, word)
        problem = self._sum_problem(word) or lesson.size_problem()
        if problem is not None:
            self._post.reject("unfit-plan", f"round {number + 1}: {problem}")
            self._advance(agent.RoundClosed())
            return
        self._announced = lesson
        self._summing = word.summing
        self._secrecy.ask_again()
        if word.summing is not None or self._settings.sums_only:
            self._upstream.masked = self._secrecy.masked
        else:
            self._upstream.masked = None
        if self._lesson is not None and self._state.round == number:
            if self._lesson.refs == lesson.refs:
                self._lesson = lesson
            elif self._state.phase == "fetching":
                self._start_fetch()
            # Whoever announces a round anew has been away, or the broker has: what was asked for may be lost.
            self._fetching.ask_again()
        invited = self._settings.device in word.participants
        self._advance(agent.RoundOpened(round=number, invited=invited, late=word.late == "carry"))

    def _sum_problem(self, word: RoundOpen) -> str | None:
        """Why this device cannot give what the round takes: knowledge as it is, or a part of a sum."""
        if word.summing is None:
            return "it is no secure sum, and this device gives to nothing else" if self._settings.sums_only else None
        try:
            check_package()
        except MissingPackageError as error:
            return str(error)
        return None

    def _follow(self, plan: Plan) -> Course:
        """Keep to this plan from now on.

        Raises:
            UnfitPlanError: when it cannot be followed here; all is then as before.
        """
        former = self._course
        if former is not None and former.identity == plan.identity:
            return former
        course = Course(plan, self._settings, self._sources, self._inbox, self._windows, self._seal)
        self._study.leave(STOP_S)
        if former is not None:
            former.sensing.stop(0.0)
        self._course, self._announced, self._lesson = course, None, None
        self._post.proxy = proxy_hash(plan.proxy)
        self._fetching.forget()
        self._upstream.forget_late()
        self._memory.begin(course.model)
        known = self._memory.progress
        self._state = agent.AgentState(trained=known.trained, delivered=known.delivered, kept=self._memory.rounds())
        there, mine = ", ".join(plan.proxy), ", ".join(course.architectures)
        log.info("the federation learns from %s; this device has %s", there, mine)
        course.sensing.start(after=None if former is None else former.sensing)
        return course

    def _on_chunk(self, chunk: Chunk) -> None:
        try:
            whole = self._fetching.take(chunk)
        except ChunkError as error:
            self._post.reject(error.trouble, str(error))
            return
        if whole:
            self._check_fetched()

    def _check_fetched(self) -> None:
        if self._lesson is not None and self._fetching.is_complete:
            self._advance(agent.Fetched(round=self._lesson.round))

    def _on_want(self, want: Want) -> None:
        topic = Topic(federation=self._settings.federation, direction="up", kind="chunk", device=self._settings.device)
        chunks = self._upstream.chunks(want, self._link.leaving(str(topic)))
        if chunks is not None:
            for chunk in chunks:
                self._send(chunk, self._state.round)
        elif self._state.phase == "sending" and self._upstream.has_lost(self._state.round):
            # It was offered and has been lost since.
            self._advance(agent.OfferDue())
        else:
            asked = want.sha256.hex()[:12]
            self._post.reject("unknown-blob", f"the coordinator asks for {asked}, which is not offered")

    def _on_receipt(self, number: int, proxy: bytes, receipt: Receipt) -> None:
        late = receipt.age > 0
        if not self._state.awaits(number, late):
            return
        if proxy != self._post.proxy:
            # A broker keeps messages for days, and the federation may have begun anew since.
            self._post.reject("other-proxy-set", f"round {number + 1}: a receipt about another proxy set")
            return
        if receipt.state == "refused":
            log.warning("round %d: the coordinator refuses what was offered: %r", number + 1, receipt.reason)
        if receipt.step is not None:
            self._secrecy.receipted(number, receipt.step)
            if receipt.step != "unmasking":
                return
        self._memory.delivered(self._state.trained if late else number)
        self._advance(agent.Receipted(round=number, late=late))

    def _on_shares(self, number: int, shares: Shares) -> None:
        lesson = self._announced
        if lesson is None or self._summing is None or number != lesson.round:
            self._post.reject("old-round", f"shares of round {number + 1}, which is not summed now")
            return
        try:
            is_news = self._secrecy.dealt(number, lesson.plan, shares)
        except WireError as error:
            self._post.reject("unfit-offer", f"round {number + 1}: {error}")
            return
        if is_news:
            self._advance(agent.OfferDue())

    # What follows

    def _advance(self, event: agent.Event) -> None:
        self._state, commands = agent.advance(self._state, event)
        for command in commands:
            match command:
                case agent.StartFetch():
                    self._start_fetch()
                case agent.StartTraining(late=late):
                    lesson, course = self._lesson, self._course
                    assert lesson is not None and course is not None, "learning needs a plan"
                    if not self._study.learn(lesson, course.sensing.hold(), late=late):
                        self._advance(agent.TrainingFailed(round=lesson.round))
                case agent.SendOffer(round=number):
                    self._send_offer(number)
                case agent.SendLateOffer(round=number):
                    late_offer = self._upstream.late_offer(time.monotonic())
                    if late_offer is not None:
                        self._send(late_offer, number)

    def _start_fetch(self) -> None:
        lesson = self._announced
        assert lesson is not None, "a round opens by an announcement"
        self._lesson = lesson
        self._fetching.begin(lesson.refs)
        self._check_fetched()

    def _send_offer(self, number: int) -> None:
        offer = self._upstream.offer(number, time.monotonic())
        if offer is not None and self._summing is not None:
            self._take_step(number, self._summing, offer)
        elif offer is not None:
            self._send(offer, number)
        elif not self._study.is_busy and not self._study.recall(number, self._announced):
            self._advance(agent.KnowledgeLost(round=number))

    def _take_step(self, number: int, summing: Summing, offer: Offer) -> None:
        """Say what the step of the secure sum asks for, in place of an offer of knowledge as it is."""
        lesson = self._announced
        assert lesson is not None, "a sum is announced"
        try:
            word = self._secrecy.word(number, lesson.plan, summing, offer)
        except WireError as error:
            self._post.reject("unfit-offer", f"round {number + 1}: {error}")
            return
        self._upstream.masked = self._secrecy.masked
        if word is not None:
            self._send(word, number)

    def _on_time(self, now_s: float) -> None:
        if self._state.phase == "fetching":
            for want in self._fetching.due(now_s, self._link.wire_bytes().down):
                self._send(want, self._state.round)
        if self._state.is_offering and self._upstream.is_due(now_s):
            self._advance(agent.OfferDue())
        if self._link.is_connected:
            self._say_presence(now_s)

    # What goes out

    def _send(self, body: Body, number: int, *, retain: bool = False) -> None:
        self._post.send(body, "up", device=self._settings.device, round=max(0, number), retain=retain)

    def _say_presence(self, now_s: float) -> None:
        presence = self._presences.due(
            now_s,
            activity=self._state.phase,
            share_done=self._study.share_done,
            windows=0 if self._course is None else self._course.sensing.count,
            lost=() if self._course is None else self._course.lost,
            wire=self._link.wire_bytes(),
            privacy=self._study.privacy(self._announced),
        )
        if presence is not None:
            self._send(presence, self._state.latest, retain=True)

    def _farewell(self) -> tuple[str, bytes]:
        lost = () if self._course is None else self._course.lost
        presence = self._presences.farewell(lost, self._study.privacy(self._announced))
        return self._post.seal(presence, "up", device=self._settings.device)
