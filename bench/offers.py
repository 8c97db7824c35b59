"""Which methods and protocols there are, by the names that a command line has for them."""

from collections.abc import Mapping
from types import MappingProxyType

from bench.experiments import Offer
from bench.protocol import ProtocolSpec
from bench.protocols import hapt, mhealth, opportunity, urfall, utd_mhad
from bench.registry import METHODS

PROTOCOLS: Mapping[str, ProtocolSpec] = MappingProxyType(
    {
        each.name: each
        for each in (hapt.PROTOCOL, utd_mhad.PROTOCOL, urfall.PROTOCOL, mhealth.PROTOCOL, opportunity.PROTOCOL)
    }
)


def methods() -> tuple[Offer, ...]:
    """Every method, in the order of the tables."""
    return tuple(
        Offer(name=each.name, label=each.label, text=each.text, paper=each.paper, federated=each.federated)
        for each in METHODS.values()
    )
