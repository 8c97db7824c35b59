"""Where the federation stands, in the words of a status message: for `mekt status` and whoever else looks. Pure."""

from collections.abc import Mapping

from coordinator.round import RoundRules, RoundState
from mekt.messages import RoundReport, Status

LONGEST_TEXT = 500


def status_of(
    state: RoundState,
    rules: RoundRules,
    *,
    now_s: float,
    seen_at_s: Mapping[str, float],
    share_learned: float,
    reports: tuple[RoundReport, ...],
) -> Status:
    """The status at `now_s`. `seen_at_s`: when each device was last heard; `share_learned`: of the distillation."""
    return Status(
        phase=state.phase,
        rounds=state.rounds,
        online=tuple(sorted(state.online)),
        waiting_for=state.waiting_for if state.phase == "collecting" else (),
        received=state.received,
        reports=reports,
        text=_text(state, rules, now_s, seen_at_s, share_learned)[:LONGEST_TEXT],
    )


def _text(
    state: RoundState, rules: RoundRules, now_s: float, seen_at_s: Mapping[str, float], share_learned: float
) -> str:
    number = f"round {state.round + 1} of {state.rounds}"
    match state.phase:
        case "waiting":
            return f"{number} opens once {rules.min_devices} devices are online; {len(state.online)} are"
        case "collecting":
            late = [f"{device} ({_last_seen(seen_at_s.get(device), now_s)})" for device in state.waiting_for]
            left_s = max(0.0, state.deadline_at_s - now_s)
            return (
                f"{number} ends in {left_s:.0f} s at the latest; "
                f"waiting for {len(late)} of {len(state.participants)}: {', '.join(late)}"
            )
        case "distilling":
            return f"{number}: learning from {len(state.received)} devices, {share_learned:.0%} done"
        case "finished":
            return f"all {state.rounds} rounds are done"


def _last_seen(at_s: float | None, now_s: float) -> str:
    return "not seen since the coordinator started" if at_s is None else f"last seen {now_s - at_s:.0f} s ago"
