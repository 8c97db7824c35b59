"""Rounds whose knowledge is summed in secret: both sides in memory, and whole federations over a real broker."""

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import round as rounds
from coordinator.aggregate import Contribution, aggregate
from coordinator.intake import Refused
from coordinator.ledger import Delivery, Ledger
from coordinator.round import NEXT, DeviceOnline, DistilRound, RoundRules, RoundState, SettleStep, StepTaken, Tick
from coordinator.summing import Summing, settled_of
from edge.memory import Memory
from edge.secrecy import Secrecy, Word
from mekt.arrays import pack_knowledge, unpack_knowledge
from mekt.errors import WireError
from mekt.files import BlobStore
from mekt.fixedpoint import FINE
from mekt.learning import Knowledge
from mekt.messages import MOST_MEMBERS, Chunk, Keys, Offer, PublicKeys, RoundOpen, Shares, Unmasking
from mekt.plan import Plan
from tests.federation import Federation, federation
from tests.mekt.test_messages import PLAN as GOLDEN
from tests.nursery import forked

pytest.importorskip("cryptography")

ROWS, WIDTH = 6, 3
PLAN: Plan = replace(
    GOLDEN,
    proxy_windows=ROWS,
    method=replace(GOLDEN.method, embedding=WIDTH, knowledge_rows=ROWS, encoding="int4"),
)
SECURE = RoundRules(min_devices=3, deadline_s=60.0, secure=True, step_s=60.0)
STEP_S = 100.0
BOTH = ("acc", "depth")
FOUR = {"pi-1": BOTH, "pi-2": BOTH, "pi-3": BOTH, "pi-4": ("acc",)}


def knowledge_of(device: str, modality: str) -> bytes:
    rows = np.random.default_rng([*device.encode(), *modality.encode()]).normal(size=(ROWS, WIDTH))
    return pack_knowledge(rows.astype(np.float32), None, PLAN.method.encoding)


class House:
    """A coordinator's and all devices' sides of one round, with what each keeps on disk."""

    def __init__(self, folder: Path, devices: Mapping[str, Sequence[str]]) -> None:
        self.folder, self.offers = folder, devices
        self.windows = {name: 10 + place for place, name in enumerate(sorted(devices))}
        self.blobs = BlobStore(folder / "blobs")
        self.memories: dict[str, Memory] = {}
        self.sides: dict[str, Secrecy] = {}
        for name, modalities in devices.items():
            self.memories[name] = Memory(folder / name)
            known = {each: knowledge_of(name, each) for each in modalities}
            self.memories[name].trained(0, b"weights", known, self.windows[name], {})
            self.restart(name)
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.summing = Summing("ward", PLAN, self.ledger)
        self.now_s = 0.0
        self.state = RoundState(rounds=2, seed=7)
        self.learned_from: tuple[str, ...] | None = None
        opening = replace(SECURE, min_devices=len(devices))
        for name in sorted(devices):
            self.state, commands = rounds.advance(self.state, DeviceOnline(device=name), opening, 0.0)
            self._carry_out(commands)

    def close(self) -> None:
        self.ledger.close()
        for each in self.memories.values():
            each.close()

    def restart(self, device: str) -> None:
        """All that a device remembers is what is on its disk."""
        self.memories[device].close()
        self.memories[device] = Memory(self.folder / device)
        self.sides[device] = Secrecy("ward", device, self.memories[device])

    def restart_coordinator(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.folder / "ledger.sqlite")
        self.summing = Summing("ward", PLAN, self.ledger)
        settled = settled_of(self.ledger.settled(0))
        step = NEXT[tuple(settled)[-1]] if settled else "collecting"
        takers = () if step == "distilling" else self.summing.takers(0, step)
        participants = self.ledger.participants(0)
        assert participants is not None
        before, fresh = self.state, RoundState(rounds=2, seed=7, online=self.state.online)
        self.state, commands = rounds.resumed_sum(
            fresh, participants, self.summing.offered(0), settled, takers, SECURE, self.now_s
        )
        assert (self.state.phase, self.state.received) == (before.phase, before.received)
        self._carry_out(commands)

    def word(self, device: str) -> Word | None:
        offer = self.memories[device].offer(0)
        assert offer is not None
        return self.sides[device].word(0, PLAN, self.summing.word(self.state), offer)

    def says(self, device: str, *, hears: bool = True) -> None:
        """A device says what it has to, and hears the answer or not."""
        word = self.word(device)
        match word:
            case None:
                return
            case Offer():
                self.words(device, word)
            case _:
                is_settled = isinstance(word, Shares) and "sharing" in self.state.settled
                outcome = self.summing.take(device, 0, word, self.state)
                assert isinstance(outcome, StepTaken), outcome
                self._advance(outcome)
                if is_settled and hears:
                    self.deal(device)

    def words(self, device: str, offer: Offer) -> None:
        refs = {name: self.blobs.put(self.sides[device].masked[ref.sha256]) for name, ref in offer.knowledge.items()}
        assert refs == offer.knowledge
        self.ledger.deliver(0, Delivery(device=device, windows=offer.windows, knowledge=refs))
        self._advance(StepTaken(device=device, round=0, step="masking"))

    def deal(self, device: str) -> None:
        inbox = self.summing.inbox(device, self.state)
        if inbox is not None:
            self.sides[device].dealt(0, PLAN, inbox)

    def passes(self) -> None:
        """The time of this step."""
        self.now_s += STEP_S
        self._advance(Tick())

    def plays(self, *steps: Sequence[str]) -> None:
        """The round with these devices in each step, and everybody in those that are not named."""
        for step in (*steps, *[list(self.offers)] * (4 - len(steps))):
            phase = self.state.phase
            for name in step:
                if phase == "masking":
                    self.deal(name)
                if self.state.phase == phase:
                    self.says(name)
            if self.state.phase == phase:
                self.passes()

    def means(self) -> dict[str, Knowledge]:
        return self.summing.sum(self.state).means(self.blobs)

    def plain(self, modality: str, devices: Sequence[str]) -> Any:
        """What the coordinator would have made of the same devices' knowledge as it is."""
        contributions = [
            Contribution(
                device=name,
                windows=self.windows[name],
                knowledge={
                    modality: Knowledge(
                        embedding=unpack_knowledge(
                            knowledge_of(name, modality), windows=ROWS, embedding=WIDTH, hidden=None
                        )[0],
                        hidden=None,
                    )
                },
            )
            for name in devices
        ]
        return aggregate(contributions)[modality].embedding

    def _advance(self, event: rounds.Event) -> None:
        self.state, commands = rounds.advance(self.state, event, SECURE, self.now_s)
        self._carry_out(commands)

    def _carry_out(self, commands: Sequence[rounds.Command]) -> None:
        for command in commands:
            match command:
                case rounds.OpenRound(participants=participants):
                    self.ledger.open_round(0, participants)
                case SettleStep(step=step, devices=devices):
                    self.ledger.settle(0, step, devices)
                case DistilRound(devices=devices):
                    self.learned_from = devices
                case _:
                    pass


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def build(devices: Mapping[str, Sequence[str]] = FOUR) -> House:
        made.append(House(tmp_path / str(len(made)), devices))
        return made[-1]

    yield build
    for each in made:
        each.close()


def test_the_sum_is_what_the_coordinator_would_have_made_of_everybodys_knowledge(house: Callable[..., House]) -> None:
    ward = house()
    ward.plays()
    assert ward.learned_from == tuple(FOUR)
    means = ward.means()
    np.testing.assert_allclose(means["acc"].embedding, ward.plain("acc", list(FOUR)), atol=FINE.precision + 1e-6)
    three = ["pi-1", "pi-2", "pi-3"]
    np.testing.assert_allclose(means["depth"].embedding, ward.plain("depth", three), atol=FINE.precision + 1e-6)


@settings(max_examples=25)
@given(st.data())
def test_whoever_falls_silent_or_starts_anew_when_ever_the_sum_is_of_those_whose_words_came(
    data: st.DataObject,
) -> None:
    names = [f"pi-{number}" for number in range(1, data.draw(st.integers(3, 6)) + 1)]
    devices = {name: data.draw(st.sampled_from([BOTH, ("acc",), BOTH])) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        ward = House(Path(folder), devices)
        try:
            while ward.state.is_open:
                phase = ward.state.phase
                for name in data.draw(st.permutations(ward.state.participants)):
                    act = data.draw(st.sampled_from(["says", "says", "says", "says", "silent", "deaf", "restarts"]))
                    if act == "restarts":
                        ward.restart(name)
                    if data.draw(st.integers(0, 5)) == 0:
                        ward.restart_coordinator()
                    if act != "silent" and ward.state.phase == phase:
                        ward.says(name, hears=act != "deaf")
                        if ward.state.phase == phase and act != "deaf":
                            # What was said once is said again, and changes nothing; a share that was lost comes.
                            ward.says(name)
                if ward.state.phase == phase:
                    ward.passes()
            groups = ward.state.groups
            means = ward.means()
            assert means.keys() == groups.keys()
            for name in groups:
                there = [who for who in ward.state.settled["masking"] if who in groups[name]]
                assert len(there) >= 3
                np.testing.assert_allclose(
                    means[name].embedding, ward.plain(name, there), atol=FINE.precision + 1e-6, rtol=0
                )
        finally:
            ward.close()


def test_words_that_were_sent_are_sent_again_and_no_others(house: Callable[..., House]) -> None:
    ward = house()
    for _ in range(2):
        for name in FOUR:
            ward.says(name)
    ward.deal("pi-1")
    first = ward.word("pi-1")
    ward.restart("pi-1")
    assert ward.word("pi-1") == first
    # The disk lost its knowledge, and what is computed anew is not the same to the last bit.
    ward.memories["pi-1"].recalled(0, {name: knowledge_of("somebody", name) for name in BOTH})
    ward.restart("pi-1")
    with pytest.raises(WireError, match="other words than before"):
        ward.word("pi-1")


def test_a_device_answers_each_question_once_and_never_otherwise(house: Callable[..., House]) -> None:
    ward = house()
    for name in FOUR:
        ward.says(name)
    whole = ward.summing.word(ward.state)
    offer = ward.memories["pi-1"].offer(0)
    assert offer is not None
    side = ward.sides["pi-1"]
    assert isinstance(side.word(0, PLAN, whole, offer), Shares)
    fewer = replace(whole, members={name: dict(list(each.items())[:3]) for name, each in whole.members.items()})
    swapped = replace(
        whole,
        members={n: each | {"pi-2": PublicKeys(seal=b"s" * 32, mask=b"m" * 32)} for n, each in whole.members.items()},
    )
    for other in (fewer, swapped):
        for _ in range(2):
            with pytest.raises(WireError, match="keys of others than before"):
                side.word(0, PLAN, other, offer)
            ward.restart("pi-1")
            side = ward.sides["pi-1"]
    for name in FOUR:
        ward.says(name)
    for name in FOUR:
        ward.deal(name)
        ward.says(name)
    last = ward.summing.word(ward.state)
    assert last.step == "unmasking" and isinstance(side.word(0, PLAN, last, offer), Unmasking)
    ward.restart("pi-1")
    side = ward.sides["pi-1"]
    assert isinstance(side.word(0, PLAN, last, offer), Unmasking)
    with pytest.raises(WireError, match="other survivors than before"):
        side.word(0, PLAN, replace(last, survivors=("pi-1", "pi-2", "pi-3")), offer)


def test_a_device_takes_no_part_in_a_sum_of_two_or_without_its_own_keys(house: Callable[..., House]) -> None:
    ward = house()
    for name in FOUR:
        ward.says(name)
    whole = ward.summing.word(ward.state)
    offer = ward.memories["pi-1"].offer(0)
    assert offer is not None
    two = replace(whole, members={"acc": dict(list(whole.members["acc"].items())[:2])})
    with pytest.raises(WireError, match="2 devices with keys"):
        ward.sides["pi-1"].word(0, PLAN, two, offer)
    foreign = {"pi-1": PublicKeys(seal=b"s" * 32, mask=b"m" * 32)}
    with pytest.raises(WireError, match="this one's are others"):
        ward.sides["pi-1"].word(0, PLAN, replace(whole, members={"acc": whole.members["acc"] | foreign}), offer)
    others = {"acc": {name: keys for name, keys in whole.members["acc"].items() if name != "pi-1"}}
    assert ward.sides["pi-1"].word(0, PLAN, replace(whole, members=others), offer) is None


def test_what_was_receipted_is_not_said_again_until_it_is_asked_for_anew(house: Callable[..., House]) -> None:
    ward = house()
    assert isinstance(ward.word("pi-1"), Keys)
    ward.sides["pi-1"].receipted(0, "keys")
    assert ward.word("pi-1") is None
    ward.sides["pi-1"].ask_again()
    assert isinstance(ward.word("pi-1"), Keys)


def test_shares_that_cannot_be_opened_are_refused_and_forgotten(house: Callable[..., House]) -> None:
    ward = house()
    for _ in range(2):
        for name in FOUR:
            ward.says(name)
    inbox = ward.summing.inbox("pi-1", ward.state)
    assert inbox is not None
    spoiled = {
        name: {who: bytes([each[0] ^ 1]) + each[1:] for who, each in sealed.items()}
        for name, sealed in inbox.sealed.items()
    }
    side = ward.sides["pi-1"]
    for bad, says in (
        (spoiled, "cannot be opened"),
        ({"rgb": inbox.sealed["acc"]}, "nobody asked for"),
        ({"acc": {"pi-2": inbox.sealed["acc"]["pi-2"]}}, "fewer than are needed"),
    ):
        with pytest.raises(WireError, match=says):
            side.dealt(0, PLAN, Shares(sealed=bad))
    assert isinstance(ward.word("pi-1"), Shares), "it asks for them"
    assert side.dealt(0, PLAN, inbox) and not side.dealt(0, PLAN, inbox)
    with pytest.raises(WireError, match="shares of others than before"):
        side.dealt(0, PLAN, Shares(sealed=spoiled))


def test_what_does_not_fit_a_step_is_refused_by_name(house: Callable[..., House]) -> None:
    ward = house()
    keys = ward.word("pi-1")
    assert isinstance(keys, Keys)
    for device, number, word, trouble in (
        ("pi-9", 0, keys, "uninvited"),
        ("pi-1", 1, keys, "early-round"),
        ("pi-1", 0, Keys(keys={"rgb": keys.keys["acc"]}), "unfit-offer"),
        ("pi-1", 0, Shares(sealed={"acc": {"pi-2": bytes(82)}}), "early-round"),
    ):
        outcome = ward.summing.take(device, number, word, ward.state)
        assert isinstance(outcome, Refused) and outcome.trouble == trouble
    for name in FOUR:
        ward.says(name)
    shares = ward.word("pi-1")
    assert isinstance(shares, Shares)
    for sealed in (
        {"acc": shares.sealed["acc"]},
        {**shares.sealed, "depth": {}},
        {"acc": {**shares.sealed["acc"], "pi-1": bytes(82)}, "depth": shares.sealed["depth"]},
    ):
        outcome = ward.summing.take("pi-1", 0, Shares(sealed=sealed), ward.state)
        assert isinstance(outcome, Refused) and outcome.trouble == "unfit-offer"
    late = ward.summing.take("pi-5", 0, keys, ward.state)
    assert isinstance(late, Refused) and late.trouble == "old-round"
    assert isinstance(ward.summing.take("pi-1", 0, keys, ward.state), StepTaken), "said again, as it was not heard"


def test_a_device_that_lies_about_shares_costs_the_sum_and_not_the_round(
    house: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    ward = house(dict.fromkeys(FOUR, ("acc",)))
    for _ in range(2):
        for name in FOUR:
            ward.says(name)
    for name in FOUR:
        ward.deal(name)
    for name in ("pi-1", "pi-2", "pi-3"):
        ward.says(name)
    ward.passes()
    for name in ("pi-1", "pi-2", "pi-4"):
        told = ward.word(name)
        assert isinstance(told, Unmasking) and told.mask_keys["acc"].keys() == {"pi-4"}
        if name == "pi-4":
            told = replace(told, mask_keys={"acc": {"pi-4": bytes(33)}})
        outcome = ward.summing.take(name, 0, told, ward.state)
        assert isinstance(outcome, StepTaken)
        ward._advance(outcome)
    assert ward.state.phase == "distilling"
    assert ward.means() == {} and "acc: the sum cannot be unmasked" in caplog.text


def test_as_many_devices_may_take_part_as_a_sum_has_room_for() -> None:
    assert FINE.most_devices == MOST_MEMBERS


# Processes over a real broker

SENSED = ("acc", "gyro")
DEVICES = {"pi-1": SENSED, "pi-2": SENSED, "pi-3": SENSED, "pi-4": ("acc",)}
SMALL: Mapping[str, Any] = {
    "devices": DEVICES,
    "rules": "min_devices = 4\ndeadline_s = 100\nsecure = true\nstep_s = 100",
    "device": "sums_only = true",
    "launch": forked,
    "duration_s": 120.0,
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, recordings: Path) -> Iterator[Federation]:
    made = federation(tmp_path_factory.mktemp("secure"), recordings, **SMALL)
    try:
        made.listen()
        made.start("coordinator", *DEVICES)
        made.finish()
        made.stop()
        yield made
    finally:
        made.end()


def test_nothing_that_leaves_a_device_is_knowledge_as_it_is(undisturbed: Federation) -> None:
    up = [envelope for direction, envelope in undisturbed.heard if direction == "up"]
    offers = [each for each in up if isinstance(each.body, Offer)]
    assert {(each.device, each.round) for each in offers} == {(name, r) for name in DEVICES for r in range(2)}
    for each in offers:
        assert isinstance(each.body, Offer)
        assert each.body.masked and each.body.windows == 1 and not each.body.metrics
    words = [np.frombuffer(each.body.data, np.uint8) for each in up if isinstance(each.body, Chunk)]
    assert len(words) == 2 * 7
    ones = np.unpackbits(np.concatenate(words)).mean()
    assert abs(ones - 0.5) < 0.01, "words under masks are like chance"
    assert len({each.tobytes() for each in words}) == len(words)


def test_every_step_is_announced_and_taken_in_its_order(undisturbed: Federation) -> None:
    steps = [
        envelope.body.summing.step
        for direction, envelope in undisturbed.heard
        if isinstance(envelope.body, RoundOpen) and envelope.body.summing is not None and envelope.round == 1
    ]
    assert list(dict.fromkeys(steps)) == ["keys", "shares", "words", "unmasking"]
    status = undisturbed.heard[-1][1].body
    assert undisturbed.release.is_file() and status is not None


def test_a_device_that_gives_to_sums_alone_gives_nothing_to_other_rounds(tmp_path: Path, recordings: Path) -> None:
    made = federation(tmp_path, recordings, **{**SMALL, "rules": "min_devices = 4\ndeadline_s = 100"})
    try:
        made.listen()
        made.start("coordinator", "pi-1")
        made.start("pi-2", "pi-3", "pi-4")
        made.until(RoundOpen, state="open")
        log = tmp_path / "pi-1.log"
        deadline_s = time.monotonic() + made.patience_s
        while "it is no secure sum" not in log.read_text() and time.monotonic() < deadline_s:
            made.hear()
        assert "it is no secure sum, and this device gives to nothing else" in log.read_text()
        made.stop()
        while made.hear() is not None:
            pass
        kinds = {envelope.kind for direction, envelope in made.heard if direction == "up"}
        assert kinds == {"presence"}
    finally:
        made.end()


def test_a_device_that_is_gone_for_good_in_the_middle_of_a_sum_costs_a_step_and_not_the_round(
    tmp_path: Path, recordings: Path
) -> None:
    rules = "min_devices = 4\ndeadline_s = 100\nsecure = true\nstep_s = 5"
    made = federation(tmp_path, recordings, **{**SMALL, "rules": rules, "rounds": 1})
    try:
        made.listen()
        made.start("coordinator", *DEVICES)
        made.until(Shares, device="pi-4")
        gone = made.processes.pop("pi-4")
        gone.kill()
        gone.wait(10)
        [_, report] = made.finish().reports
        assert set(report.devices) in ({"pi-1", "pi-2", "pi-3"}, set(DEVICES)), "it may have sent its words before"
        assert report.release
        made.stop()
        unmasking = [envelope.body for _, envelope in made.heard if isinstance(envelope.body, Unmasking)]
        assert unmasking and all(set(each.seeds["acc"]) == set(report.devices) for each in unmasking)
    finally:
        made.end()


def test_kills_at_every_step_of_a_sum_change_no_byte_of_the_release(
    undisturbed: Federation, tmp_path: Path, recordings: Path
) -> None:
    made = federation(tmp_path, recordings, **SMALL)
    moments: list[tuple[int, type[Any], tuple[str, ...]]] = [
        (0, Keys, ("pi-2", "coordinator")),
        (0, Shares, ("coordinator",)),
        (0, Offer, ("pi-1", "pi-4")),
        (1, Shares, ("pi-1", "pi-3", "coordinator")),
        (1, Unmasking, ("pi-2", "coordinator")),
    ]
    try:
        made.listen()
        made.start("coordinator", *DEVICES)
        for number, kind, victims in moments:
            made.until(kind, round=number)
            for name in victims:
                made.processes[name].send_signal(signal.SIGKILL)
            for name in victims:
                made.processes[name].wait(10)
            made.start(*victims)
        made.finish()
        made.stop()
        assert made.release.read_bytes() == undisturbed.release.read_bytes()
    finally:
        made.end()
