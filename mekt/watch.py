"""A look at a running federation from outside: its retained status and every device's presence."""

import json
import queue
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, TextIO

from mekt import catalogue
from mekt.errors import LinkError
from mekt.link import Link, Received
from mekt.login import BrokerSettings
from mekt.messages import Presence, Privacy, RolloutStatus, Status
from mekt.post import Post, one_line
from mekt.schema import plain
from mekt.topics import for_watcher

# Retained messages follow the subscription at once; what has not come by then is not there.
PATIENCE_S = 3.0
QUIET_S = 0.4
# Anybody whom the broker lets in may write presences; a view does not grow for ever.
MOST_DEVICES = 4096
# As many devices fit a line.
MOST_DISAGREEING = 8
PHASES = ("collect", "distil", "classify", "score", "export")


@dataclass(slots=True)
class View:
    """What has been seen so far: the latest status, and each device's latest presence with the round it speaks of."""

    status: Status | None = None
    round: int = 0
    devices: dict[str, tuple[int, Presence]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For machines."""
        devices = {name: {"round": number, **plain(each)} for name, (number, each) in sorted(self.devices.items())}
        return {"round": self.round, "status": None if self.status is None else plain(self.status), "devices": devices}

    def lines(self) -> list[str]:
        """For people."""
        lines = ["no coordinator has said anything here" if self.status is None else one_line(self.status.text)]
        for name, (number, each) in sorted(self.devices.items()):
            state: str = each.activity if each.state == "online" else "offline"
            if state == "training":
                state = f"training {each.progress:.0%}"
            modalities = ", ".join(f"{modality} ({one_line(kind)})" for modality, kind in each.modalities.items())
            lines.append(
                f"  {name:<16} {state:<14} round {number + 1:<4} {each.windows:>6} windows  "
                f"{kilobytes(each.up_bytes)} up  {kilobytes(each.down_bytes)} down  {modalities}{spent(each.privacy)}"
            )
        if self.status is not None and self.status.rollout is not None:
            lines += rollout_lines(self.status.rollout)
        if self.status is not None and self.status.trouble:
            told = ", ".join(f"{name} {count}" for name, count in sorted(self.status.trouble.items()))
            lines.append(f"  messages that something was wrong with: {told} (docs/errors.md)")
        if self.status is not None and self.status.reports:
            lines += [*finding_lines(self.status), *disagreement_lines(self.status)]
            lines += ["", *report_table(self.status)]
        return lines


class Watch:
    """A connection that only looks. `view` grows while `look` is called."""

    def __init__(self, broker: BrokerSettings, federation: str) -> None:
        self.view = View()
        self._inbox: queue.Queue[Any] = queue.Queue(4096)
        self._post = Post(federation)
        # A client id of its own, and a session that ends with the connection: any number of people may look.
        self._link = Link(
            settings=broker,
            client_id=f"mekt:{federation}:watch:{secrets.token_hex(6)}",
            inbox=self._inbox,
            subscriptions=for_watcher(federation),
            keeps_session=False,
        )

    def start(self) -> None:
        """Connect.

        Raises:
            LinkError: when the broker cannot be reached.
        """
        self._link.start()

    def stop(self) -> None:
        """Disconnect."""
        self._link.stop(1.0)

    def look(self, timeout_s: float) -> str | None:
        """Take in the next message: the device that spoke, "" for the coordinator; None when none came in time."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                event = self._inbox.get(timeout=left_s)
            except queue.Empty:
                return None
            envelope = self._post.open(event) if isinstance(event, Received) else None
            if envelope is None:
                continue
            match envelope.body:
                case Status() as status:
                    self.view.status, self.view.round = status, envelope.round
                    return ""
                case Presence() as presence if (
                    envelope.device in self.view.devices or len(self.view.devices) < MOST_DEVICES
                ):
                    self.view.devices[envelope.device] = (envelope.round, presence)
                    return envelope.device
                case _:
                    continue
        return None


def show_status(broker: BrokerSettings, federation: str, *, as_json: bool, out: TextIO) -> int:
    """Print where the federation stands; the exit code.

    Raises:
        LinkError: when the broker cannot be reached, or nobody of this federation has been there.
    """
    watch = Watch(broker, federation)
    watch.start()
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if watch.look(QUIET_S) is None and (watch.view.status is not None or watch.view.devices):
                break
    finally:
        watch.stop()
    view = watch.view
    if view.status is None and not view.devices:
        raise LinkError(
            f"broker {broker.host}:{broker.port}: nothing of a federation {federation!r} is there; "
            "start its coordinator, or correct the federation's name",
            catalogue.FEDERATION_SILENT,
        )
    print(json.dumps(view.plain()) if as_json else "\n".join(view.lines()), file=out)
    return 0


def rollout_lines(rollout: RolloutStatus) -> list[str]:
    """Which release wearables are to run, how far they are with it, and what they run."""
    lines = [f"rollout {rollout.number}: {one_line(rollout.text)}"]
    for what, counts in (("how far", rollout.states), ("running", rollout.wearables)):
        if counts:
            lines.append(f"  wearables, {what}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return lines


def finding_lines(status: Status) -> list[str]:
    """What is wrong with learning as the latest report has it: a line for each finding; none where all is well."""
    latest = status.reports[-1]
    return [one_line(f"round {latest.round}: {each}") for each in latest.findings]


def disagreement_lines(status: Status) -> list[str]:
    """Whose knowledge was farthest from the fleet's in the latest round, a line; none where that could not be told."""
    latest = status.reports[-1]
    farthest = sorted(latest.disagreement.items(), key=lambda each: (-each[1], each[0]))[:MOST_DISAGREEING]
    if not farthest:
        return []
    told = ", ".join(f"{name} {score:.2f}" for name, score in farthest)
    return [f"round {latest.round}: disagreement with the fleet (1 is usual): {told}"]


def report_table(status: Status) -> list[str]:
    """A row for each report: the metrics of the global encoders, the seconds of each phase."""
    scores = list(dict.fromkeys(name for each in status.reports for name in each.metrics if "/" in name))
    phases = list(dict.fromkeys(name for each in status.reports for name in each.seconds))
    phases.sort(key=lambda name: PHASES.index(name) if name in PHASES else len(PHASES))
    names = [one_line(name.split("/", 1)[1]) for name in scores]
    wide = [max(8, len(name) + 1) for name in names]
    head = "after round  devices" + "".join(f"{name:>{width}}" for name, width in zip(names, wide, strict=True))
    rows = []
    for each in status.reports:
        row = f"{'start' if each.round == 0 else each.round:>11}  {len(each.devices) or '-':>7}"
        for name, width in zip(scores, wide, strict=True):
            value = each.metrics.get(name)
            row += f"{'-' if value is None else format(value, '.3f'):>{width}}"
        rows.append(row + "".join(f"{each.seconds.get(phase, 0.0):>11.2f}" for phase in phases))
    title = [f"{'':20}{'weighted F1':>{sum(wide)}}{'seconds':>{11 * len(phases)}}"] if names else []
    return [*title, head + "".join(f"{one_line(phase):>11}" for phase in phases), *rows]


def spent(privacy: Privacy | None) -> str:
    """What a device has given away of its private data, in words; nothing where it does not count that."""
    if privacy is None:
        return ""
    words = f"  epsilon {privacy.epsilon:.3g} of {privacy.budget:.3g} (delta {privacy.delta:g})"
    return words + (", sits out: its privacy budget is spent" if privacy.is_spent else "")


def kilobytes(count: int) -> str:
    """Bytes for people, of equal width: kilobytes of 1000."""
    return f"{count / 1000:>9,.1f} kB"
