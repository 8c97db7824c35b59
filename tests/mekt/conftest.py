"""A real broker, links to it, and certificates, for the tests of what speaks to a broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mekt.broker import Broker
from tests.mekt.links import Sides
from tests.mekt.papers import Papers, papers_in


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A mosquitto that keeps nothing over its own death."""
    with Broker(tmp_path / "broker", kind="mosquitto") as running:
        yield running


@pytest.fixture
def sides(broker: Broker) -> Iterator[Sides]:
    """Links to it."""
    opened = Sides(broker.port)
    yield opened
    opened.stop()


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Certificates; nobody changes them."""
    return papers_in(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def tls_broker(tmp_path: Path, papers: Papers) -> Iterator[Broker]:
    """A mosquitto that speaks TLS alone, and asks who comes for a certificate."""
    lines = (
        f"cafile {papers.ca}",
        f"certfile {papers.server}",
        f"keyfile {papers.server_key}",
        "require_certificate true",
    )
    with Broker(tmp_path / "tls", kind="mosquitto", more=lines) as running:
        yield running
