"""What the coordinator says to everybody: where the round stands, and the status when it is due. Pure.

Times are seconds of one monotonic clock.
"""

from dataclasses import replace

from coordinator.round import RoundRules, RoundState
from mekt.messages import RoundOpen, Status, Summing
from mekt.plan import BlobRef, Plan

# While a round collects, its status is said again this often, for the times in its text.
STATUS_S = 10.0
# A changed status waits this long for further changes.
STATUS_PACE_S = 0.2


def announcement(
    state: RoundState,
    rules: RoundRules,
    plan: Plan,
    knowledge: dict[str, BlobRef],
    now_s: float,
    summing: Summing | None = None,
) -> RoundOpen:
    """Where the round, and its secure sum, stand at `now_s`, for its participants and whoever comes later."""
    return RoundOpen(
        state="open" if state.is_open else "finished" if state.phase == "finished" else "closed",
        deadline_s=max(0.0, state.deadline_at_s - now_s) if state.is_open else 0.0,
        late=rules.late,
        participants=state.participants,
        plan=plan,
        knowledge=knowledge,
        summing=summing,
    )


class Statuses:
    """When a status is said: soon when more than its words has changed, and now and then for these."""

    def __init__(self) -> None:
        self._said: Status | None = None
        self._said_at_s = 0.0

    def forget(self) -> None:
        """Say it anew: the broker may have forgotten what was said."""
        self._said = None

    def may_come(self, now_s: float) -> bool:
        """Whether a status can be due at all; another one was said too shortly before otherwise."""
        return self._said is None or now_s - self._said_at_s >= STATUS_PACE_S

    def is_due(self, status: Status, now_s: float) -> bool:
        """Whether this has to be said now; it then counts as said."""
        said = self._said
        changed = said is None or replace(said, text=status.text, trouble=status.trouble) != status
        if not changed and not (now_s - self._said_at_s >= STATUS_S and status != said):
            return False
        self._said, self._said_at_s = status, now_s
        return True
