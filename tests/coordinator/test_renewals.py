"""A certificate comes to its end while a release is on its way to a wearable, over a broker that asks for it."""

import contextlib
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.authority import Authority, write_part
from coordinator.fence import Fence, renew
from coordinator.rollouts import Rollouts
from coordinator.settings import TrustSettings
from coordinator.signer import write_public
from edge.updates.keeper import Keeper
from edge.updates.settings import UpdateSettings
from export.release import read_release
from mekt import clock
from mekt.broker import free_port
from mekt.clock import DAY_S, DEVICE_DAYS
from mekt.identity import CA, CERTIFICATE, KEY, fits, key_and_request, tls_settings, write_certificate
from mekt.login import BrokerSettings
from mekt.messages import Request
from tests.coordinator.conftest import FEDERATION, Start, settings_of
from tests.export.small import ACC, parts_of
from tests.fences import FencedBroker
from tests.mekt.conftest import needs_mosquitto
from tests.waiting import until

pytestmark = needs_mosquitto
WEARABLE = "wrist-7"
WORKER = "edge.updates.worker"
RELEASE = f"{FEDERATION}-00001"


def join(authority: Authority, identity: Path) -> None:
    """What `mekt enroll join` makes of a token."""
    identity.mkdir()
    token = authority.token(WEARABLE, hours=1, host="127.0.0.1", port=1)
    csr = key_and_request(identity / KEY, WEARABLE)
    answer = authority.enrol(WEARABLE, Request(token=token.secret, csr=csr))
    write_certificate(identity / CA, authority.ca)
    write_certificate(identity / CERTIFICATE, answer.certificate)
    write_public(identity, authority.signer.public_key)
    clock.remember(identity, token.made_s)


def test_a_wearable_on_trial_that_has_nothing_to_say_renews_its_certificate_and_uses_it_from_the_next_connection_on(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("coordinator.daemon.REMIND_S", 0.1)
    monkeypatch.setattr("coordinator.registrar.TELL_S", 0.1)
    identity, fence, port = tmp_path / "identity", tmp_path / "fence", free_port()
    with contextlib.ExitStack() as stack:
        authority = stack.enter_context(closing(Authority.create(tmp_path / "authority", FEDERATION)))
        write_part(authority, "coordinator", FEDERATION, tmp_path / "issued")
        join(authority, identity)
        Fence(folder=fence, port=port, hosts=("127.0.0.1",), bind="127.0.0.1", user="root").write(authority)
        broker = stack.enter_context(FencedBroker(fence, port=port))

        def login(folder: Path) -> BrokerSettings:
            return BrokerSettings(port=port, tls=tls_settings(folder))

        trust = TrustSettings(authority=str(tmp_path / "authority"), broker=str(fence))
        running = start(settings_of(broker=login(tmp_path / "issued"), trust=trust))
        stack.callback(running.stop)
        ship(tmp_path, authority)
        updates = UpdateSettings(
            federation=FEDERATION,
            device=WEARABLE,
            state="worn",
            broker=login(identity),
            trust="identity/coordinator.pub",
        )
        stack.callback(Keeper(updates, tmp_path).close)

        def on_trial(times: int) -> bool:
            status = running.coordinator._shipping.status
            connected = [each.name for each in caplog.records if each.message.startswith("connected to the broker")]
            return status is not None and status.states == {"trial": 1} and connected.count(WORKER) == times

        # The first release of all is tried at once; its trial ends with windows, and here are none.
        until(lambda: on_trial(1))
        former = (identity / CERTIFICATE).read_bytes()
        assert len(authority.certified(WEARABLE)) == 1

        with closing(sqlite3.connect(tmp_path / "authority" / "authority.sqlite")) as db, db:
            aged = 0.7 * DEVICE_DAYS * DAY_S
            db.execute("UPDATE certificate SET issued_s = issued_s - ?, ends_s = ends_s - ?", (aged, aged))
        until(lambda: (identity / CERTIFICATE).read_bytes() != former)
        assert fits(identity / CERTIFICATE, identity / KEY) and on_trial(1), "it was connected all the while"
        assert [each.revoked_s for each in authority.certified(WEARABLE)] == [None, None]

        # The former one is good for nothing any more.
        broker.kill()
        with closing(sqlite3.connect(tmp_path / "authority" / "authority.sqlite")) as db, db:
            db.execute(
                "UPDATE certificate SET revoked_s = 1 WHERE name = ? AND issued_s < ?", (WEARABLE, time.time() - DAY_S)
            )
        renew(fence, authority)
        broker.start()
        until(lambda: on_trial(2))


def ship(folder: Path, authority: Authority) -> None:
    """Begin a rollout to all, as a person's command does."""
    parts_of(ACC).write(folder / f"{RELEASE}.zip")
    rules = settings_of().rollout
    sign = authority.signer.sign
    with closing(Rollouts(folder / "state", FEDERATION, rules, lambda manifest: sign("release", manifest))) as rollouts:
        rollouts.start(read_release(folder / f"{RELEASE}.zip"), RELEASE, 1.0)
