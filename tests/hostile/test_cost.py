"""What a message costs its reader is bounded by its length, whoever made it up; nothing here looks at a clock."""

import random
from typing import Any

import msgpack
import numpy as np
import pytest

from mekt.arrays import pack_knowledge, unpack_knowledge
from mekt.errors import WireError
from mekt.messages import FEW_ENTRIES, FINDINGS_KEPT, KINDS, MOST_ENTRIES, REPORTS_KEPT, SCORES_KEPT, decode
from tests.hostile.cost import lines, peak_bytes
from tests.hostile.decoders import DECODERS, ENCODINGS, golden, topic_of
from tests.hostile.mutants import pack

# Of a byte: an empty map takes 72, a map of one pair 85 for three, a float beside its copy 32 for nine.
MOST_BYTES_A_BYTE = 96
# Of a message: a nest of msgpack's 1024 levels, each with room for as many entries as it may declare, and the rest.
NEST_BYTES, NEST_BYTES_LONG = 8 * 1024 * FEW_ENTRIES, 8 * 1024 * MOST_ENTRIES
OTHER_BYTES = 256 * 1024
# Of a byte, a name of two bytes takes 44; of a message, what looks for the key that was meant.
MOST_LINES_A_BYTE, OTHER_LINES = 25, 5_000

REPORT: dict[str, Any] = {"round": 0, "devices": [], "metrics": {}, "seconds": {}}
FINDING = {"name": "collapse", "modality": "a", "evidence": "", "remedy": ""}
STATUS: dict[str, Any] = {
    "phase": "",
    "rounds": 1,
    **dict.fromkeys(("online", "waiting_for", "received", "reports"), ()),
    "text": "",
}


def message(kind: str, body: Any) -> bytes:
    data: dict[str, Any] = msgpack.unpackb(golden(kind))
    packed: bytes = msgpack.packb(data | {"body": body})
    return packed


def reports(count: int, **changes: Any) -> bytes:
    return message("status", STATUS | {"reports": [REPORT | changes] * count})


def dear(share: int) -> dict[str, bytes]:
    """Messages whose every byte costs much; with a share of 1 they fill a status, or come near it."""
    entries = MOST_ENTRIES // share
    return {
        "numbers for findings": reports(250, findings=[0] * entries),
        "bad names": reports(230, devices=[""] * entries),
        "good names": reports(REPORTS_KEPT, devices=["ab"] * entries),
        "scores of devices": reports(REPORTS_KEPT, disagreement={f"d{n:x}": 1.0 for n in range(SCORES_KEPT)}),
        "too many scores": reports(REPORTS_KEPT, disagreement={f"d{number:x}": 1.0 for number in range(entries)}),
        "bad scores of devices": reports(REPORTS_KEPT, disagreement={f"{number:x}": "" for number in range(entries)}),
        "more reports than are kept": reports(2000 // share, devices=["ab"] * 100),
        "findings of unknown keys": reports(6, findings=[{f"d{number}": 0 for number in range(10)}] * entries),
        "good findings": reports(REPORTS_KEPT, findings=[FINDING] * FINDINGS_KEPT),
        "too many findings": reports(5, findings=[FINDING] * entries),
        "too many seconds": reports(REPORTS_KEPT, seconds={f"{number:x}": 0 for number in range(entries)}),
        "unknown long keys": message("status", STATUS | {f"{number:064}": 0 for number in range(entries)}),
        "empty maps": message("status", [[{}] * entries] * 250),
        "empty lists": message("status", [[[]] * entries] * 250),
        "maps of a pair": message("status", [[{"": {}}] * entries] * 64),
        "a nest of lists": b"\xdc\x10\x00" * 1024,
        "a nest of maps": b"\xde\x10\x00\xa0" * 1024,
        "a nest that ends early": b"\xdd\0\0\x10\0" * 500 + b"\xc1",
    }


DEAR = dear(16)


@pytest.mark.parametrize("name", DEAR)
def test_the_dearest_messages_take_memory_in_proportion_to_their_length(name: str) -> None:
    raw, topic = DEAR[name], topic_of("status")
    assert len(raw) <= KINDS["status"][1]
    most = MOST_BYTES_A_BYTE * len(raw) + (NEST_BYTES_LONG + OTHER_BYTES if "nest" in name else 0)
    assert peak_bytes(lambda raw: decode(raw, topic), raw) <= most


@pytest.mark.parametrize("name", DEAR)
def test_the_dearest_messages_take_work_in_proportion_to_their_length(name: str) -> None:
    raw, topic = DEAR[name], topic_of("status")
    assert lines(lambda raw: decode(raw, topic), raw) <= MOST_LINES_A_BYTE * len(raw) + OTHER_LINES


def test_a_message_that_is_wrong_everywhere_is_refused_for_its_first_problems() -> None:
    """A megabyte of these took 240 MB and seconds, for three problems that were told."""
    full = dear(1)
    for name in ("numbers for findings", "bad names"):
        raw = full[name]
        assert 900_000 < len(raw) <= KINDS["status"][1]
        assert peak_bytes(decode, raw) <= 10 * len(raw)
        with pytest.raises(WireError) as caught:
            decode(raw)
        assert str(caught.value).count("; ") == 2
        assert lines(decode, raw) <= 20_000


@pytest.mark.parametrize("kind", sorted(kind for kind, (_, _, directions) in KINDS.items() if "all" not in directions))
@pytest.mark.parametrize("lead", [b"\xdc", b"\xde", b"\xdd\0\0", b"\xdf\0\0"])
def test_what_a_device_can_send_takes_a_mebibyte_at_most(kind: str, lead: bytes) -> None:
    for length in (FEW_ENTRIES, FEW_ENTRIES + 1, MOST_ENTRIES):
        level = lead + length.to_bytes(2, "big") + (b"\xa0" if lead[0] & 2 else b"")
        raw = (level * 1030)[: KINDS[kind][1]]
        assert peak_bytes(lambda raw: decode(raw, topic_of(kind)), raw) <= NEST_BYTES + OTHER_BYTES


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "chunks"])
def test_mutants_cost_what_their_length_allows(name: str) -> None:
    decoder, chance = DECODERS[name], random.Random(2)
    long = name in ("message on round", "message on status", "message anywhere", "plain data", "post")
    nest = NEST_BYTES_LONG if long else NEST_BYTES
    for seed in decoder.seeds * (1 + 60 // len(decoder.seeds)):
        raw = decoder.mutant(seed, chance)
        assert peak_bytes(decoder.decode, raw) <= MOST_BYTES_A_BYTE * len(raw) + nest + OTHER_BYTES
        assert lines(decoder.decode, raw) <= MOST_LINES_A_BYTE * len(raw) + OTHER_LINES


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_knowledge_takes_memory_in_proportion_to_its_length(encoding: Any) -> None:
    x_ND = np.random.default_rng(1).normal(0, 1, (4096, 32)).astype(np.float32)
    raw = pack_knowledge(x_ND, None, encoding)
    most = {"float32": 4, "float16": 5, "int8": 12, "int4": 24}[encoding]

    def read(raw: bytes) -> None:
        unpack_knowledge(raw, windows=4096, embedding=32, hidden=None)

    assert peak_bytes(read, raw) <= most * len(raw) + OTHER_BYTES
    assert peak_bytes(read, raw[:-1]) <= 2 * len(raw) + OTHER_BYTES


def test_nested_bytes_that_end_too_soon_are_cheap_however_they_are_made() -> None:
    nested: tuple[Any, ...] = ([[]] * FEW_ENTRIES, {"": [{}] * FEW_ENTRIES})
    for value in nested:
        raw = pack(value)
        for length in range(0, len(raw), 7):
            assert peak_bytes(decode, raw[:length]) <= MOST_BYTES_A_BYTE * length + OTHER_BYTES
