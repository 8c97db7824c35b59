"""Who is left out: devices that were odd for some rounds, until they have agreed for some. Pure.

    trusted     -> quarantined   odd in `quarantine_after` rounds in a row: left out from this very round on
    quarantined -> trusted       agreed in `quarantine_back` rounds in a row: counts from this very round on

Only rounds count in which a device delivered and could be compared; one that is away, or that nobody can be compared
with, stays what it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from coordinator.round import RoundRules
from mekt.messages import LONGEST_SENTENCE, Finding, Sentence
from mekt.modality import ModalityName
from mekt.schema import Bounds

Rounds = Annotated[int, Bounds(low=0, high=2**31 - 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How a device stands: in so many rounds in a row it was odd, or, in quarantine, agreed again.

    `since`: the round, counted from 1, in which it was quarantined, 0 when it is not. `modality` and `reason` are of
    the last time that it was odd.
    """

    odd: Rounds = 0
    agreed: Rounds = 0
    since: Rounds = 0
    modality: ModalityName
    reason: Sentence

    @property
    def is_quarantined(self) -> bool:
        """Whether its knowledge is left out."""
        return self.since > 0


# Device -> how it stands; nothing can be said against devices that are not in it.
Standings = Mapping[str, Standing]


def after(
    standings: Standings, odd: Mapping[str, Finding], compared: Iterable[str], rules: RoundRules, number: int
) -> Standings:
    """The standings after round `number`, in which these devices were `compared` with others, and these were odd.

    In order of names, without those that nothing can be said against.
    """
    found = dict(standings)
    for device in sorted({*odd, *compared}):
        now = _moved(found.pop(device, None), odd.get(device), rules, number)
        if now is not None:
            found[device] = now
    return dict(sorted(found.items()))


def _moved(before: Standing | None, finding: Finding | None, rules: RoundRules, number: int) -> Standing | None:
    """How a device stands that was compared; None: nothing can be said against it."""
    if finding is None:
        if before is None or not before.is_quarantined:
            return None
        agreed = before.agreed + 1
        return None if agreed >= rules.quarantine_back else replace(before, odd=0, agreed=agreed)
    odd = 1 if before is None else before.odd + 1
    since = before.since if before is not None else 0
    if not since and odd >= rules.quarantine_after:
        since = number + 1
    return Standing(odd=odd, since=since, modality=finding.modality, reason=finding.evidence)


def is_out(standings: Standings, device: str) -> bool:
    """Whether this device's knowledge is left out."""
    return device in standings and standings[device].is_quarantined


def told(standings: Standings, rules: RoundRules) -> list[Finding]:
    """Those in quarantine, with the reason, for log, status and report."""
    return [
        Finding(
            name="quarantined",
            modality=each.modality,
            device=device,
            evidence=f"left out since round {each.since}: {each.reason}"[:LONGEST_SENTENCE],
            remedy=f"mend it; it counts again once it has agreed in {rules.quarantine_back} rounds in a row",
        )
        for device, each in standings.items()
        if each.is_quarantined
    ]
