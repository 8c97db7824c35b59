"""What a message that leaves a device contains, in words, read from the bytes that leave. Pure."""

from collections.abc import Mapping

from mekt import catalogue
from mekt.errors import WireError
from mekt.messages import (
    Chunk,
    Envelope,
    Fitness,
    Keys,
    Offer,
    Presence,
    Renewal,
    Request,
    Shares,
    Unmasking,
    Want,
    decode,
)
from mekt.topics import parse_topic

# Of a hash, what people compare.
SHORT = 12


def read(topic: str, payload: bytes, device: str) -> Envelope:
    """The message in `payload`, as every receiver would read it.

    Raises:
        WireError: when it is none that this device may send: such bytes do not leave.
    """
    where = parse_topic(topic)
    if where is None or where.direction not in ("up", "enroll") or where.device != device:
        raise WireError(f"{topic!r} is no topic on which {device} speaks", catalogue.NOT_A_MESSAGE)
    return decode(payload, where)


def words(envelope: Envelope, modality_of: Mapping[str, str], *, is_will: bool = False) -> str:
    """What it contains; `modality_of`: what the blobs with these hashes (in hexadecimal) are knowledge of."""
    match envelope.body:
        case Presence() as presence if is_will:
            return f"last will, said by the broker when this device is gone: {_presence(presence)}"
        case Presence() as presence:
            return f"presence: {_presence(presence)}"
        case Offer() as offer:
            return f"offer of {_offer(offer)}"
        case Keys(keys=keys):
            return f"public keys of one round, for a secure sum of {', '.join(keys)}"
        case Shares(sealed=sealed):
            return f"shares of one round's secrets, sealed to {_others(sealed)}"
        case Unmasking(seeds=seeds, mask_keys=silent):
            without = f", without those of {_others(silent)}" if any(silent.values()) else ""
            return f"shares that unmask the sum of the words of {_others(seeds)}{without}"
        case Want(sha256=sha256, chunks=chunks):
            return f"request for {_count(len(chunks), 'chunk')} of blob {sha256.hex()[:SHORT]}"
        case Chunk() as chunk:
            of = modality_of.get(chunk.sha256.hex())
            what = "knowledge" if of is None else f"knowledge of {of}"
            return f"{what}: chunk {chunk.index + 1} of {chunk.count} of blob {chunk.sha256.hex()[:SHORT]}"
        case Fitness() as fitness:
            return f"fitness: {_fitness(fitness)}"
        case Request():
            return "certificate request: this device's public key, and the token's secret"
        case Renewal():
            return "certificate request: this device's public key, for a new certificate"
        case _:
            return f"a message of kind {envelope.kind}"


def _presence(presence: Presence) -> str:
    senses = ", ".join(presence.modalities) or "nothing"
    if presence.state == "offline":
        return f"offline; has {senses}"
    done = f" {presence.progress:.0%}" if presence.progress else ""
    traffic = f"{presence.up_bytes} bytes up and {presence.down_bytes} down"
    return f"{presence.activity}{done}; has {senses}; {_count(presence.windows, 'window')}; {traffic}"


def _fitness(fitness: Fitness) -> str:
    runs = "no release" if fitness.running is None else f"release {fitness.running.hex()[:SHORT]}"
    why = f" ({fitness.why})" if fitness.why else ""
    measured = (
        (fitness.agreement_percent, "% of windows as before"),
        (fitness.latency_us, " us for a window"),
        (fitness.memory_mb, " MB of memory"),
    )
    figures = "".join(f"; {figure}{unit}" for figure, unit in measured if figure is not None)
    return f"runs {runs}; rollout {fitness.number}: {fitness.state}{why}{figures}"


def _others(shares: Mapping[str, Mapping[str, bytes]]) -> str:
    names = sorted({device for each in shares.values() for device in each})
    return ", ".join(names) or "nobody"


def _offer(offer: Offer) -> str:
    each = [f"{name} (blob {ref.sha256.hex()[:SHORT]})" for name, ref in offer.knowledge.items()]
    if offer.masked:
        return f"masked words of {', '.join(each)}, of which only the sum says something"
    age = f", learned {_count(offer.age, 'round')} before" if offer.age else ""
    metrics = f"; numbers on learning: {', '.join(offer.metrics)}" if offer.metrics else ""
    return f"{', '.join(each)} from {_count(offer.windows, 'window')}{age}{metrics}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
