"""A wrong clock harms nobody as long as what the coordinator said bounds it; beyond that it is believed."""

import contextlib
import queue
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.authority import Authority, write_part
from coordinator.fence import CERTIFICATE, KEY, renew
from mekt import clock
from mekt.clock import DAY_S, DEVICE_DAYS, bounded_s, known_s, remember
from mekt.credentials import tls_context
from mekt.errors import LinkError
from mekt.identity import pem, tls_settings, write_certificate, write_private
from mekt.link import Link
from mekt.login import BrokerSettings
from tests.clocks import needs_compiler, wrong_clock
from tests.fences import fenced_broker
from tests.mekt.conftest import needs_mosquitto
from tests.mekt.links import unclosed
from tests.waiting import until

ROOT = Path(__file__).parents[2]
YEAR_S = 365 * DAY_S
TIMES = st.floats(0, 1e10)


@given(now=TIMES, known=TIMES)
def test_the_time_is_the_clocks_where_that_can_be_true_and_else_the_nearest_that_can(now: float, known: float) -> None:
    at_s = bounded_s(now, known)
    assert known <= at_s <= known + DEVICE_DAYS * DAY_S
    assert (at_s == now) == (known <= now <= known + DEVICE_DAYS * DAY_S)


@pytest.mark.parametrize("content", [b"", b"nan", b"inf", b"-1", b"soon", b"\xff", b"1e999"])
def test_a_file_without_a_time_says_nothing(tmp_path: Path, content: bytes) -> None:
    assert known_s(tmp_path) is None
    (tmp_path / clock.TIME).write_bytes(content)
    assert known_s(tmp_path) is None
    remember(tmp_path, 1.7e9 + 0.4)
    assert known_s(tmp_path) == 1.7e9


def connects(identity: Path, port: int) -> None:
    settings = BrokerSettings(host="127.0.0.1", port=port, tls=tls_settings(identity))
    link = Link(settings=settings, client_id="pi-3", inbox=queue.Queue(), keeps_session=False)
    link.start(20)
    link.stop()


def is_let_in(identity: Path, port: int) -> bool:
    try:
        connects(identity, port)
    except LinkError as error:
        assert "TLS fails" in str(error)
        return False
    return True


@unclosed
@needs_mosquitto
def test_a_broker_whose_certificate_has_ended_is_refused_by_the_bounded_time_too(tmp_path: Path) -> None:
    """Whoever has stolen its files of a year ago is not believed, where the clock is right or off by what can be."""
    with contextlib.closing(Authority.create(tmp_path / "authority", "ward")) as authority:
        write_part(authority, "watch", "alice", tmp_path / "alice")
        with fenced_broker(tmp_path / "broker", authority) as port:
            assert is_let_in(tmp_path / "alice", port)
            former = authority._issue("broker:stolen", time.time() - YEAR_S, ("127.0.0.1",))
            write_certificate(tmp_path / "broker" / CERTIFICATE, former.certificate)
            write_private(tmp_path / "broker" / KEY, former.key)
            assert renew(tmp_path / "broker", authority)
            until(lambda: not is_let_in(tmp_path / "alice", port))
            for known in (time.time(), time.time() - 80 * DAY_S, time.time() + 80 * DAY_S, time.time() - YEAR_S / 2):
                remember(tmp_path / "alice", known)
                assert not is_let_in(tmp_path / "alice", port)
            # All that is known is two years old: then the certificate was good, and the clock may be wrong.
            remember(tmp_path / "alice", time.time() - 2 * YEAR_S)
            assert is_let_in(tmp_path / "alice", port)


def test_a_login_that_is_no_identitys_is_as_python_has_it(tmp_path: Path) -> None:
    with contextlib.closing(Authority.create(tmp_path / "authority", "ward")) as authority:
        write_part(authority, "watch", "alice", tmp_path / "alice")
        assert pem(authority.ca) == (tmp_path / "alice" / "ca.pem").read_bytes()
    plain = tls_context(tls_settings(tmp_path / "alice"))
    assert not plain.verify_flags & clock.NO_CHECK_TIME and plain.sslsocket_class is ssl.SSLSocket
    remember(tmp_path / "alice", 1.7e9)
    bounded = tls_context(tls_settings(tmp_path / "alice"))
    assert bounded.verify_flags & clock.NO_CHECK_TIME and bounded.sslsocket_class is not ssl.SSLSocket
    assert bounded.verify_mode == ssl.CERT_REQUIRED and bounded.check_hostname


JOINS = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from edge.enrolment import enrol\n"
    "from mekt.token import read_token\n"
    "from tests.mekt.test_clock import connects\n"
    "print(time.strftime('%Y', time.gmtime()))\n"
    "token = read_token(sys.stdin.readline())\n"
    "enrol(token, Path(sys.argv[1]), 30)\n"
    "connects(Path(sys.argv[1]), token.port)\n"
)


@needs_compiler
@needs_mosquitto
@pytest.mark.parametrize(
    ("year", "ahead_s"), [("1970", DAY_S - time.time()), ("", 10 * YEAR_S), ("", -YEAR_S)], ids=["1970", "+10", "-1"]
)
def test_a_board_with_a_wrong_clock_enrols_and_connects(tmp_path: Path, year: str, ahead_s: float) -> None:
    from tests.coordinator.test_fence import certifying

    with contextlib.closing(Authority.create(tmp_path / "authority", "ward")) as authority:
        write_part(authority, "coordinator", "ward", tmp_path / "coordinator")
        with fenced_broker(tmp_path / "broker", authority) as port:
            token = authority.token("pi-3", hours=1, host="127.0.0.1", port=port)
            with certifying(tmp_path, authority.folder, port):
                done = subprocess.run(
                    [sys.executable, "-c", JOINS, str(tmp_path / "pi-3")],
                    cwd=ROOT,
                    input=token.text(),
                    capture_output=True,
                    text=True,
                    env=wrong_clock(tmp_path, ahead_s) | {"PATH": "/usr/local/bin:/usr/bin:/bin"},
                )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == (year or time.strftime("%Y", time.gmtime(time.time() + ahead_s)))
        known = known_s(tmp_path / "pi-3")
        assert known is not None and abs(known - time.time()) < 600
