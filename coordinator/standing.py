"""Where the federation stands: which devices are there, and the status message that says it in words too. Pure.

Times are seconds of one monotonic clock.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from coordinator.round import DeviceOffline, DeviceOnline, Phase, RoundRules, RoundState
from mekt import catalogue
from mekt.errors import WireError
from mekt.messages import Body, Finding, Presence, RolloutStatus, RoundReport, Status, Trouble

LONGEST_TEXT = 500
# How much of the text may go to the names of devices.
LONGEST_NAMES = 350
# The names of devices, their scores and the findings in a status' reports. With more it would outgrow what common
# brokers carry.
MOST_WORDS_BYTES = 64 * 1024
FINDING_BYTES = 64
SCORE_BYTES = 11
MOST_DEVICES = 4096
# After a connection to the broker: who has not been heard by then did not come back with it.
RETURN_S = 60.0
# What devices do in the steps of a secure sum.
SECRETS: Mapping[Phase, str] = {
    "sharing": ": dealing shares of secrets",
    "masking": ": sending masked words",
    "unmasking": ": unmasking their sum",
}
# Of each device, so that a message that comes again is known.
MESSAGES_REMEMBERED = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """A device's last word, when it was last heard, and the newest of the numbers of its session's messages."""

    presence: Presence
    at_s: float
    newest: int = 0
    latest: frozenset[int] = frozenset()
    former_session: int | None = None
    has_twin: bool = False


class Fleet:
    """The devices of a federation as they say themselves, a bounded number of them."""

    def __init__(self, modalities: Collection[str], most: int = MOST_DEVICES) -> None:
        self._modalities = frozenset(modalities)
        self._most = most
        self._devices: dict[str, _Seen] = {}
        self._connected_at_s = -math.inf
        self._is_complete = True

    def __contains__(self, device: str) -> bool:
        return device in self._devices

    @property
    def seen_at_s(self) -> dict[str, float]:
        """When each device was last heard."""
        return {device: seen.at_s for device, seen in self._devices.items()}

    def told(self, device: str, presence: Presence, now_s: float) -> DeviceOnline | DeviceOffline | None:
        """What a device's word on itself means for the round.

        A device that has nothing to give, or may not give any more, is as good as offline.

        Raises:
            WireError: when there are too many devices.
        """
        known = self._devices.get(device)
        if presence.state == "offline":
            # The will of an earlier session may come behind the device's return.
            if known is None or known.presence.session != presence.session:
                return None
            self._devices[device] = replace(known, presence=presence)
            return DeviceOffline(device=device)
        if known is None:
            self._make_room()
        if known is None:
            known = _Seen(presence=presence, at_s=now_s)
        elif known.presence.session != presence.session:
            # A session numbers its messages from 1 on. One that comes back after another has not ended.
            twin = presence.session == known.former_session
            former = known.presence.session
            known = _Seen(presence=presence, at_s=now_s, former_session=former, has_twin=twin)
        self._devices[device] = replace(known, presence=presence, at_s=now_s)
        useful = self._modalities & set(presence.modalities)
        if presence.privacy is not None and presence.privacy.is_spent:
            useful = frozenset()
        return DeviceOnline(device=device) if useful else DeviceOffline(device=device)

    def is_back(self, device: str, body: Body) -> bool:
        """True when `body` is a device's first word after it, or the broker, was away: what it was sent may be lost."""
        known = self._devices.get(device)
        if known is None:
            return False
        session = body.session if isinstance(body, Presence) else known.presence.session
        return known.at_s < self._connected_at_s or session != known.presence.session

    def has_twin(self, device: str) -> bool:
        """Whether another process spoke for this device between two words of this one."""
        known = self._devices.get(device)
        return known is not None and known.has_twin

    def heard(self, device: str, sequence: int, now_s: float) -> Trouble | None:
        """A device has sent something; what is odd about its coming now. MQTT may bring a message twice."""
        known = self._devices.get(device)
        if known is None:
            return "unannounced"
        newest = max(known.newest, sequence)
        latest = frozenset(each for each in known.latest | {sequence} if each > newest - MESSAGES_REMEMBERED)
        self._devices[device] = replace(known, at_s=now_s, newest=newest, latest=latest)
        if sequence in known.latest:
            return "repeated"
        return "out-of-order" if sequence < known.newest else None

    def connected(self, now_s: float) -> None:
        """The broker is there (again), and tells or told anew which devices are."""
        self._connected_at_s, self._is_complete = now_s, False

    def lost(self, now_s: float) -> list[DeviceOffline]:
        """Devices that were gone when the broker came back: of these it has no last will to tell."""
        began_s = self._connected_at_s
        if self._is_complete or now_s - began_s < RETURN_S:
            return []
        self._is_complete = True
        gone = [name for name, each in self._devices.items() if each.at_s < began_s and each.presence.state == "online"]
        for name in gone:
            each = self._devices[name]
            self._devices[name] = replace(each, presence=replace(each.presence, state="offline"))
        return [DeviceOffline(device=name) for name in sorted(gone)]

    def _make_room(self) -> None:
        if len(self._devices) < self._most:
            return
        absent = {name: each.at_s for name, each in self._devices.items() if each.presence.state == "offline"}
        if not absent:
            raise WireError(
                f"more than {self._most} devices; start another federation for the rest", catalogue.FEDERATION_FULL
            )
        del self._devices[min(absent, key=absent.__getitem__)]


def status_of(
    state: RoundState,
    rules: RoundRules,
    *,
    now_s: float,
    seen_at_s: Mapping[str, float],
    share_learned: float,
    reports: tuple[RoundReport, ...],
    trouble: Mapping[Trouble, int],
    rollout: RolloutStatus | None = None,
) -> Status:
    """The status at `now_s`. `seen_at_s`: when each device was last heard; `share_learned`: of the distillation."""
    return Status(
        phase=state.phase,
        rounds=state.rounds,
        online=tuple(sorted(state.online)),
        waiting_for=state.waiting_for if state.is_open else (),
        received=state.received,
        reports=_newest(reports),
        text=_text(state, rules, now_s, seen_at_s, share_learned)[:LONGEST_TEXT],
        trouble={name: trouble[name] for name in sorted(trouble)},
        rollout=rollout,
    )


def _newest(reports: tuple[RoundReport, ...]) -> tuple[RoundReport, ...]:
    """The latest reports, as many as one message carries; the last one in any case."""
    kept: list[RoundReport] = []
    words_bytes = 0
    for report in reversed(reports):
        words_bytes += sum(len(device) + 2 for device in report.devices)
        words_bytes += sum(len(device) + SCORE_BYTES for device in report.disagreement)
        words_bytes += sum(_size_bytes(each) for each in report.findings)
        if kept and words_bytes > MOST_WORDS_BYTES:
            break
        kept.append(report)
    return tuple(reversed(kept))


def _size_bytes(finding: Finding) -> int:
    """About what a finding takes in a message: its words, and the names of its fields."""
    words = (finding.name, finding.modality, finding.device, finding.evidence, finding.remedy)
    return FINDING_BYTES + sum(len(each.encode()) for each in words)


def _text(
    state: RoundState, rules: RoundRules, now_s: float, seen_at_s: Mapping[str, float], share_learned: float
) -> str:
    number = f"round {state.round + 1} of {state.rounds}"
    match state.phase:
        case "waiting":
            wanted, there = _are(rules.min_devices, "device"), _are(len(state.online))
            return f"{number} opens once {wanted} online; {there}"
        case "distilling":
            devices = "1 device" if len(state.received) == 1 else f"{len(state.received)} devices"
            return f"{number}: learning from {devices}, {share_learned:.0%} done"
        case "finished":
            return f"all {state.rounds} rounds are done"
        case step:
            late = [f"{device} ({_last_seen(seen_at_s.get(device), now_s)})" for device in state.waiting_for]
            left_s = max(0.0, state.deadline_at_s - now_s)
            return (
                f"{number}{SECRETS.get(step, '')} ends in {left_s:.0f} s at the latest; "
                f"waiting for {len(late)} of {len(state.participants)}: {_some(late)}"
            )


def _are(count: int, noun: str = "") -> str:
    words = (str(count), noun + "s" * (bool(noun) and count != 1), "is" if count == 1 else "are")
    return " ".join(word for word in words if word)


def _some(names: list[str]) -> str:
    """As many of the names as there is room for, and how many there are beyond."""
    text = ""
    for index, name in enumerate(names):
        if len(text) + len(name) > LONGEST_NAMES:
            return f"{text} and {len(names) - index} more"
        text += f", {name}" if text else name
    return text


def _last_seen(at_s: float | None, now_s: float) -> str:
    return "not seen since the coordinator started" if at_s is None else f"last seen {now_s - at_s:.0f} s ago"


def listed(names: Collection[str]) -> str:
    """These names in a sentence."""
    return ", ".join(names) or "nobody"
