"""What a round's knowledge goes through before it is distilled: who is odd, who is left out, what the rest comes to.

All of it depends on the standings before the round, what was delivered and the rules alone, so that after a crash the
same comes of it. What is left out is received and acknowledged as ever, so that a device can show that it agrees again.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coordinator import quarantine, signs
from coordinator.aggregate import Contribution, aggregate
from coordinator.disagreement import Distance, disagreement, worst
from coordinator.quarantine import Standings
from coordinator.round import RoundRules
from mekt.learning import Arrays, Knowledge
from mekt.messages import Finding

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighed:
    """What a round's knowledge comes to, and what was thought of each device.

    `scores`: how far each device is from the fleet, 1 as far as usual. `findings` are of single devices.
    """

    aggregate: Mapping[str, Knowledge]
    standings: Standings
    scores: Mapping[str, float]
    findings: tuple[Finding, ...]


def weigh(
    contributions: Sequence[Contribution], known: Arrays | None, standings: Standings, rules: RoundRules, number: int
) -> Weighed:
    """The aggregate of what round `number` brought, without the devices that are in quarantine.

    Args:
        contributions: one of each device that delivered.
        known: the global knowledge (N, D) that the round began with, or None before anything has been learned.
        standings: as they were before the round.
        rules: say how to aggregate, and whom to leave out.
        number: of the round, counted from 0.
    """
    standings = standings if rules.quarantine == "odd" else {}
    out = frozenset(device for device in standings if quarantine.is_out(standings, device))
    scores, findings = _looked_at(contributions, known, out, rules)
    if rules.quarantine == "odd":
        suspects = _suspects(contributions, known, out, findings)
        # Of one that is odd where nobody can tell who errs, this round says nothing.
        told = scores.keys() - ({each.device for each in findings} - suspects.keys())
        standings = quarantine.after(standings, suspects, told, rules, number)
    trusted = [each for each in contributions if not quarantine.is_out(standings, each.device)]
    return Weighed(
        aggregate=aggregate(trusted, rules.aggregator),
        standings=standings,
        scores=scores,
        findings=(*quarantine.told(standings, rules), *findings),
    )


def _looked_at(
    contributions: Sequence[Contribution], known: Arrays | None, out: frozenset[str], rules: RoundRules
) -> tuple[dict[str, float], tuple[Finding, ...]]:
    """How far each device is from the fleet, and what is odd about it; those that are `out` are compared with the rest.

    A failure here never costs the round.
    """
    if not contributions:
        return {}, ()
    try:
        count = len(next(iter(contributions[0].knowledge.values())).embedding)
        rows = signs.device_rows_of(count, len(contributions))
        sent = {
            each.device: {name: one.embedding[rows] for name, one in each.knowledge.items()} for each in contributions
        }
        known = None if known is None else {name: array[rows] for name, array in known.items()}
        far = disagreement(sent, known, out)
        collapsed = (finding for device in sorted(sent) for finding in signs.collapse(sent[device], device))
        return worst(far), (*collapsed, *_odd(sent, far, out, rules))
    except Exception:
        log.exception("nothing can be said of this round's devices; the round goes on with those that were trusted")
        return {}, ()


def _odd(
    sent: Mapping[str, Arrays],
    far: Mapping[str, Mapping[str, Distance]],
    out: frozenset[str],
    rules: RoundRules,
) -> list[Finding]:
    """Trusted devices that are odd among themselves, and those that are out and odd among some of the trusted."""
    trusted = {device: arrays for device, arrays in sent.items() if device not in out}
    odd = list(signs.odd_devices(trusted, far, rules.odd_above))
    names = sorted(trusted)
    some = {names[at]: trusted[names[at]] for at in signs.rows_of(len(names), signs.MOST_REFERENCES)} if names else {}
    for device in sorted(out & sent.keys()):
        found = signs.odd_devices({**some, device: sent[device]}, far, rules.odd_above)
        odd += [finding for finding in found if finding.device == device]
    return odd


def _suspects(
    contributions: Sequence[Contribution], known: Arrays | None, out: frozenset[str], findings: Iterable[Finding]
) -> dict[str, Finding]:
    """The first finding of each odd device.

    Where half of a modality's voices or more are odd, nobody can tell who errs, and nobody becomes suspect by it. The
    voices are the trusted devices, and the global knowledge where it is `known`.
    """
    voices = dict.fromkeys(known or {}, 1)
    for each in contributions:
        for name in each.knowledge if each.device not in out else ():
            voices[name] = voices.get(name, 0) + 1
    by_modality: dict[str, dict[str, Finding]] = {}
    for finding in findings:
        by_modality.setdefault(finding.modality, {}).setdefault(finding.device, finding)
    suspects: dict[str, Finding] = {}
    for name, odd in sorted(by_modality.items()):
        if 2 * len(odd.keys() - out) < voices.get(name, 0):
            suspects = odd | suspects
    return suspects
