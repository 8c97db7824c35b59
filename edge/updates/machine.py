"""A wearable's updates as a state machine: which release it runs, without clock, socket, disk or onnxruntime.

    running, good, refused, rolled-back
                -> fetching     a rollout that this wearable takes part in announced another release
                -> good         ... announced the release that runs already, or the last good one, which then runs
    fetching    -> testing      the release is on the disk, and verified
    testing     -> trial        it passed the self-test: it runs from now on, beside it the last good one is kept
    fetching, testing
                -> refused      it cannot be fetched, is none, or did not pass
    trial       -> good         it has said something about windows for so long that it is trusted
    trial       -> rolled-back  it failed, or the process or the board did, again and again: the last good one runs
    any         -> fetching     a newer rollout overtakes one under way; from a trial by way of the last good one

What is kept on the disk is an `Updates`, in one piece: whoever has one knows what to run. `advance` maps (state, event)
to (state, commands); the state is durable before a command is followed. Events that do not fit the state change
nothing, so each may come twice, and `commands_at_start` repeats what a process that ended was about.
"""

from dataclasses import dataclass, replace

from mekt.messages import FitnessState, Unfit
from mekt.plan import BlobRef

UNDER_WAY: tuple[FitnessState, ...] = ("fetching", "testing", "trial")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What a release has to show in its trial: so many seconds of windows, and at most so many starts.

    A start counts until the release has run for `proof_s` since: what ends the process once a day is another matter.
    """

    trial_s: float = 3600.0
    proof_s: float = 300.0
    most_starts: int = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What the self-test measured, in whole numbers, as it is reported."""

    agreement_percent: int | None = None
    confidence_percent: int | None = None
    latency_us: int | None = None
    memory_mb: int | None = None

    def __str__(self) -> str:
        told = (
            ("agreement {} %", self.agreement_percent),
            ("confidence {} %", self.confidence_percent),
            ("{} us a window", self.latency_us),
            ("{} MB", self.memory_mb),
        )
        return ", ".join(words.format(each) for words, each in told if each is not None) or "nothing was measured"


@dataclass(frozen=True, kw_only=True, slots=True)
class Updates:
    """Where a wearable stands. Releases are named by the content of their files.

    `running`: what is to be run, None before the first, or where the first failed; `good`: the last one that proved
    good, other than that; `target`: what rollout `number` brings. In a trial, `ran_s` is for how long it has run, and
    `starts` how often it was started without proving itself after, of which the latest was at `started_s`.
    """

    phase: FitnessState = "running"
    number: int = 0
    running: BlobRef | None = None
    good: BlobRef | None = None
    target: BlobRef | None = None
    why: Unfit = ""
    figures: Figures = Figures()
    starts: int = 0
    started_s: float = 0.0
    ran_s: float = 0.0

    @property
    def kept(self) -> frozenset[BlobRef]:
        """Whose files are needed."""
        arriving = self.target if self.phase in UNDER_WAY else None
        return frozenset(ref for ref in (self.running, self.good, arriving) if ref is not None)


# Events


@dataclass(frozen=True, kw_only=True, slots=True)
class Announced:
    """The coordinator announced a rollout that this wearable takes part in."""

    number: int
    blob: BlobRef


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawn:
    """It took back all before this number, and has no other release."""

    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived:
    """This release is whole on the disk and verified."""

    blob: BlobRef


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """This release passed the self-test, or did not and `why`; or it could not even be fetched or verified."""

    blob: BlobRef
    why: Unfit = ""
    figures: Figures = Figures()


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """The process begins; what `running` is then will be run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The process ends because it was asked to, and not by a fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """The release at work has given windows their classes for so many seconds more, of running time."""

    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The release at work did not do what it should."""

    why: Unfit


@dataclass(frozen=True, kw_only=True, slots=True)
class Damaged:
    """The file of this release is not what was verified, or gone."""

    blob: BlobRef


Event = Announced | Withdrawn | Arrived | Judged | Started | Ended | Ran | Failed | Damaged


# Commands


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetch:
    """Get this release onto the disk, and verify it."""

    blob: BlobRef


@dataclass(frozen=True, kw_only=True, slots=True)
class Try:
    """Try this release on recent windows, beside the one at work."""

    blob: BlobRef


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Have this release at work from now on: the new one, or the last good one again."""

    blob: BlobRef


@dataclass(frozen=True, kw_only=True, slots=True)
class Forget:
    """Whatever is being fetched or tested is not wanted any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Tell the coordinator where this wearable stands."""


Command = Fetch | Try | Run | Forget | Report


def commands_at_start(state: Updates) -> tuple[Command, ...]:
    """What is to be done by a process that has just begun, beside running `running`."""
    match state:
        case Updates(phase="fetching", target=BlobRef() as target):
            return Forget(), Fetch(blob=target), Report()
        case Updates(phase="testing", target=BlobRef() as target):
            return Forget(), Try(blob=target), Report()
        case _:
            return Forget(), Report()


def advance(state: Updates, event: Event, rules: Rules) -> tuple[Updates, tuple[Command, ...]]:
    """The state after `event`, and what is to be done once it is durable."""
    match event:
        case Announced():
            if event.number > state.number:
                return _take_up(state, event)
        case Withdrawn():
            if event.number > state.number:
                return _give_up(state, event.number)
        case Arrived():
            if state.phase == "fetching" and event.blob == state.target:
                return replace(state, phase="testing"), (Try(blob=event.blob), Report())
        case Judged():
            if state.phase in ("fetching", "testing") and event.blob == state.target:
                return _judge(state, event)
        case Started():
            if state.phase == "trial":
                if state.starts >= rules.most_starts:
                    return _fail(state, "crashed")
                return replace(state, starts=state.starts + 1, started_s=state.ran_s), ()
        case Ended():
            if state.phase == "trial":
                return replace(state, starts=0), ()
        case Ran():
            if state.phase == "trial":
                return _go_on(state, event.seconds, rules)
        case Failed():
            if state.phase == "trial":
                return _fail(state, event.why)
        case Damaged():
            return _replace_damaged(state, event.blob)
    return state, ()


def _take_up(state: Updates, event: Announced) -> tuple[Updates, tuple[Command, ...]]:
    """A newer rollout: nothing to do where its release runs, no need to fetch or to test the last good one."""
    taken = _fresh(state, event.number, event.blob)
    if event.blob == state.running:
        # A trial goes on: who announces it again has not seen it succeed.
        return (replace(state, number=event.number) if state.phase == "trial" else taken), (Forget(), Report())
    former = _settled(state)
    if event.blob == state.good:
        other = None if state.phase == "trial" else state.running
        return replace(taken, running=state.good, good=other), (Run(blob=event.blob), Forget(), Report())
    back = () if former.running == state.running else _run(former.running)
    taken = replace(taken, running=former.running, good=former.good, phase="fetching")
    return taken, (*back, Forget(), Fetch(blob=event.blob), Report())


def _give_up(state: Updates, number: int) -> tuple[Updates, tuple[Command, ...]]:
    former = _settled(state)
    back = () if former.running == state.running else _run(former.running)
    given = replace(_fresh(state, number, None), phase="running", running=former.running, good=former.good)
    return given, (*back, Forget(), Report())


def _judge(state: Updates, event: Judged) -> tuple[Updates, tuple[Command, ...]]:
    """The swap, or not."""
    if event.why:
        return replace(state, phase="refused", why=event.why, figures=event.figures), (Forget(), Report())
    if state.phase != "testing":
        return state, ()
    good = state.good if state.running is None else state.running
    # The first start is the swap itself.
    state = replace(state, phase="trial", running=event.blob, good=good, figures=event.figures)
    return replace(state, starts=1, started_s=0.0, ran_s=0.0), (Run(blob=event.blob), Forget(), Report())


def _go_on(state: Updates, seconds: float, rules: Rules) -> tuple[Updates, tuple[Command, ...]]:
    ran_s = state.ran_s + seconds
    if ran_s >= rules.trial_s:
        return replace(state, phase="good", starts=0, started_s=0.0, ran_s=0.0), (Report(),)
    is_proven = ran_s - state.started_s >= rules.proof_s
    return replace(state, ran_s=ran_s, starts=0 if is_proven else state.starts), ()


def _fail(state: Updates, why: Unfit) -> tuple[Updates, tuple[Command, ...]]:
    """Back to the last good one; a first release has none, and nothing is run then."""
    failed = replace(state, phase="rolled-back", why=why, running=state.good, good=None)
    return _ended(failed), (*_run(state.good), Forget(), Report())


def _replace_damaged(state: Updates, blob: BlobRef) -> tuple[Updates, tuple[Command, ...]]:
    """Run what is left, and fetch again what the newest rollout brings, as the disk is at fault and not the release."""
    here = {state.running, state.good} | ({state.target} if state.phase == "testing" else set())
    if blob not in here:
        return state, ()
    left = replace(
        state,
        running=state.good if blob == state.running else state.running,
        good=None if blob in (state.running, state.good) else state.good,
    )
    back = () if left.running == state.running else _run(left.running)
    if blob != state.target or state.phase in ("refused", "rolled-back"):
        return left, (*back, Report())
    return replace(_ended(left), phase="fetching"), (*back, Forget(), Fetch(blob=blob), Report())


def _settled(state: Updates) -> Updates:
    """Without what is under way: a release on trial goes, unless there is nothing else to run."""
    if state.phase == "trial" and state.good is not None:
        return replace(state, running=state.good, good=None)
    return state


def _fresh(state: Updates, number: int, target: BlobRef | None) -> Updates:
    """The beginning of a rollout, which is its end where there is nothing to do."""
    return replace(_ended(state), phase="good", number=number, target=target, why="", figures=Figures())


def _ended(state: Updates) -> Updates:
    """Without the counts of a trial."""
    return replace(state, starts=0, started_s=0.0, ran_s=0.0)


def _run(blob: BlobRef | None) -> tuple[Command, ...]:
    return () if blob is None else (Run(blob=blob),)
