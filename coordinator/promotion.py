"""A release on its way to wearables: taken from the shelf, finished, signed, its rollout begun or changed.

It is what a person's commands do in a coordinator's state folder, beside the coordinator or without it.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from coordinator.datasets import labelled_windows
from coordinator.registrar import open_authority
from coordinator.regressions import regressions
from coordinator.rollout import Widened, too_few
from coordinator.rollouts import Rollouts, Shipped, Sign, settled
from coordinator.settings import FederationSettings
from coordinator.shelf import find
from export.release import Release
from mekt import catalogue
from mekt.errors import ReleaseError

log = logging.getLogger(__name__)


@contextmanager
def opened(settings: FederationSettings, base: Path, state: Path) -> Iterator[Rollouts]:
    """The rollouts in the folder `state` of a federation whose settings are in the folder `base`.

    Raises:
        MektError: when state or authority cannot be used.
    """
    if not state.is_dir():
        raise ReleaseError(
            f"{state}: there are no releases; run the coordinator first, or correct `state`", catalogue.RELEASE_UNKNOWN
        )
    with ExitStack() as stack:
        sign: Sign | None = None
        if settings.trust is not None:
            authority = open_authority(base / settings.trust.authority, settings.federation)
            sign = partial(stack.enter_context(closing(authority)).signer.sign, "release")
        yield stack.enter_context(closing(Rollouts(state, settings.federation, settings.rollout, sign)))


def taken(settings: FederationSettings, base: Path, state: Path, name: str) -> Release:
    """The release of this name as it was shipped last, or, where it was not, as its round left it.

    Raises:
        MektError: when there is no such release, or state or authority cannot be used.
    """
    with opened(settings, base, state) as rollouts:
        shipped = next((each for each in reversed(rollouts.all) if each.progress.release == name), None)
        release = None if shipped is None else rollouts.release(shipped)
    return find(state, name) if release is None else release


def promote(
    settings: FederationSettings,
    base: Path,
    state: Path,
    name: str,
    share: float | None = None,
    *,
    even_if_worse: bool = False,
) -> Shipped:
    """Ship the release of this name to a share of the wearables, by default that of the settings; 1 is all of them.

    It is finished before, which takes seconds. Of one that is on trial, widen the share. A share of which nothing can
    come, as too few wearables take part, is warned of. One that finds a class less often than the release that
    wearables run (`coordinator.regressions`) is shipped only with `even_if_worse`.

    Raises:
        MektError: when there is no such release, it is worse, another is on trial, or state or authority cannot be
            used.
    """
    # Only here: it brings torch along, which no other command takes.
    from coordinator.finishing import finished

    with opened(settings, base, state) as rollouts:
        newest = rollouts.newest
        if newest is None or newest.progress.release != name or newest.progress.state != "canary":
            release = finished(settings, base, find(state, name))
            if not even_if_worse:
                _refuse_worse(settings, base, rollouts, release)
            after = rollouts.start(release, name, settings.rollout.share if share is None else share)
        elif share is None or share <= newest.progress.share:
            raise ReleaseError(
                f"{name} is on trial on {newest.progress.share:.0%} of wearables; widen that with --share, or promote "
                "it to all with --now",
                catalogue.ROLLOUT_UNDER_WAY,
            )
        else:
            widened = rollouts.advance(Widened(share=share), newest.progress.number)
            assert widened is not None, "there was one"
            after = widened
        if warning := too_few(after.progress, rollouts.wearables, settings.rollout):
            log.warning("%s: %s", name, warning)
        return after


def _refuse_worse(settings: FederationSettings, base: Path, rollouts: Rollouts, release: Release) -> None:
    """Whether it finds all that the release finds which wearables run.

    Raises:
        ReleaseError: when it does not.
    """
    shipped = settled(rollouts.all)
    before = None if shipped is None else rollouts.release(shipped)
    if before is None:
        return
    windows, _ = labelled_windows(settings, base, release.manifest.labels)
    if worse := regressions(before, release, windows):
        classes = ", ".join(f"{each.label} ({each.before:.0%} -> {each.after:.0%})" for each in worse)
        raise ReleaseError(
            f"{release.path}: finds less of these classes' labelled windows than {before.path.name}, which wearables "
            f"run: {classes}; keep it back, or ship it all the same with --even-if-worse",
            catalogue.RELEASE_WORSE,
        )
