"""What a device says of itself, and when: at once when its activity changes, now and then how far it has come. Pure."""

from collections.abc import Collection, Mapping

from edge.agent import Phase
from mekt.messages import Presence, Privacy
from mekt.plan import Architecture
from mekt.traffic import WireBytes

PROGRESS_S = 1.0


class Presences:
    """The words of one session of a device with these modalities and encoders. Times are monotonic seconds."""

    def __init__(self, session: int, modalities: Mapping[str, Architecture]) -> None:
        self._session = session
        self._modalities = modalities
        self._said: Presence | None = None
        self._said_at_s = 0.0

    def forget(self) -> None:
        """Say it all again: the broker may have forgotten what was said."""
        self._said = None

    def due(
        self,
        now_s: float,
        *,
        activity: Phase,
        share_done: float,
        windows: int,
        lost: Collection[str],
        wire: WireBytes,
        privacy: Privacy | None = None,
    ) -> Presence | None:
        """What has to be said now, if anything; it then counts as said. `lost`: modalities that are not sensed now."""
        presence = Presence(
            state="online",
            session=self._session,
            activity=activity,
            progress=round(share_done, 3),
            modalities=self._present(lost),
            windows=windows,
            up_bytes=wire.up,
            down_bytes=wire.down,
            privacy=privacy,
        )
        said = self._said
        changed = said is None or _lasting(said) != _lasting(presence)
        moved = said is not None and said.progress != presence.progress
        if not changed and not (moved and now_s - self._said_at_s >= PROGRESS_S):
            return None
        self._said, self._said_at_s = presence, now_s
        return presence

    def farewell(self, lost: Collection[str] = (), privacy: Privacy | None = None) -> Presence:
        """What is said when this device is gone: by itself, or by the broker as its last will."""
        return Presence(
            state="offline",
            session=self._session,
            activity="idle",
            modalities=self._present(lost),
            privacy=privacy,
        )

    def _present(self, lost: Collection[str]) -> dict[str, str]:
        return {name: self._modalities[name] for name in sorted(self._modalities) if name not in lost}


def _lasting(presence: Presence) -> tuple[object, ...]:
    """What is said at once when it has changed."""
    return presence.activity, presence.modalities, presence.privacy
