"""What a round's knowledge becomes: better global encoders, a classifier, scores, a release. Slow; off the loop.

The encoders are durable before anything else is tried; a failure behind them costs scores or release, never the round.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from coordinator import signs
from coordinator.aggregate import Contribution
from coordinator.classifier import LinearClassifier, fit_classifier, with_changed
from coordinator.datasets import Datasets
from coordinator.distil import Distiller
from coordinator.ledger import Delivery
from coordinator.quarantine import Standings
from coordinator.round import RoundRules
from coordinator.summing import SecretSum
from coordinator.weighing import Weighed, weigh
from export.manifest import SUFFIX
from export.writer import write_release
from mekt import catalogue
from mekt.arrays import pack_knowledge, unpack_knowledge
from mekt.augment import view
from mekt.checkpoint import load_weights, pack_weights
from mekt.encoders import Encoder
from mekt.errors import ReleaseError, StateError
from mekt.files import BlobStore, make_folder, write_atomically
from mekt.learning import Arrays, Knowledge, Progress, tensors
from mekt.losses import reconstruction_distance
from mekt.messages import SCORES_KEPT, Finding, RoundReport
from mekt.plan import Architecture, Plan
from mekt.scores import weighted_f1
from sensors.source import Floats

log = logging.getLogger(__name__)

FUSED = "fused"
# Proxy windows that are rebuilt to see whether reconstruction follows its input; decoding frames takes long.
REBUILT_WINDOWS = 64
WEIGHTS_KEPT = 2
# Of a score in a report.
SCORE_DIGITS = 3
NOBODY: Standings = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Fitted:
    """A classifier and the modalities whose embeddings it takes side by side."""

    modalities: tuple[str, ...]
    classifier: LinearClassifier


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """What a round came to: its report, and how devices stand after it."""

    report: RoundReport
    standings: Standings


class Learner:
    """The global encoders and what is made of them, kept in `folder`. One thread at a time uses it."""

    def __init__(
        self,
        *,
        federation: str,
        plan: Plan,
        datasets: Datasets,
        architectures: Mapping[str, Architecture],
        folder: Path,
        compute: torch.device | str = "cpu",
        sign: Callable[[bytes], bytes] | None = None,
        rules: RoundRules | None = None,
    ) -> None:
        self._federation = federation
        self._rules = rules or RoundRules()
        self._plan = plan
        self._datasets = datasets
        self._proxy = datasets.normalised_proxy()
        self._folder = make_folder(folder)
        self.releases = make_folder(folder / "releases")
        self._architectures: dict[str, Architecture] = {
            each.name: architectures.get(each.name, "conv") for each in plan.modalities
        }
        self._compute = compute
        self._sign = sign
        self._distiller = self._fresh()

    def restore(self, rounds_done: int) -> None:
        """Take up the encoders as they were after so many rounds; the plan's seed alone gives those before the first.

        Raises:
            StateError: when their file is missing or damaged.
        """
        if rounds_done == 0:
            self._distiller = self._fresh()
            return
        path = self._weights_path(rounds_done)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise StateError(
                f"{path}: cannot be read ({error.strerror}); restore it from a copy", catalogue.of_disk(error)
            ) from error
        load_weights(self._distiller, raw, str(path))

    def knowledge(self, number: int) -> dict[str, bytes]:
        """The global knowledge of the proxy set as round `number` looks at it, as blobs per modality."""
        return {
            name: pack_knowledge(each.embedding, each.hidden, self._plan.method.encoding)
            for name, each in self._distiller.knowledge(view(self._plan, self._proxy, number)).items()
        }

    def close_round(
        self,
        number: int,
        deliveries: Sequence[Delivery],
        blobs: BlobStore,
        progress: Progress,
        collect_s: float,
        standings: Standings = NOBODY,
        secret: SecretSum | None = None,
    ) -> Closed:
        """Learn from what was delivered within `collect_s` in this round; the encoders are durable when this returns.

        Of a `secret` sum the sum is all that is known, and of no device can anything be told.
        They must be those of `number` rounds, and so must the `standings`: equal ones lead to equal ones. When learning
        diverges the encoders stay as they are: the round is lost, not the federation.

        Raises:
            StateError: when a delivered blob is gone, or the disk is full.
        """
        began_s = time.monotonic()
        rows = signs.rows_of(self._plan.knowledge_rows)
        looked_at = {name: array[rows] for name, array in view(self._plan, self._proxy, number).items()}
        known = self._distiller.embed(looked_at)
        if secret is None:
            contributions = [self._contribution(delivery, blobs) for delivery in deliveries]
            weighed = self._weighed(number, contributions, standings)
        else:
            weighed = Weighed(aggregate=secret.means(blobs), standings=standings, scores={}, findings=())
        aggregated = weighed.aggregate
        loss = self._distiller.distil(self._proxy, aggregated, number, progress)
        losses = {"reconstruction": loss.reconstruction, "transfer": loss.transfer}
        if not self._is_sound(number + 1):
            log.error("round %d: learning diverged; its knowledge is dropped. Lower distil_rate or eta", number + 1)
            self.restore(number)
            losses, aggregated = {}, {}
        write_atomically(self._weights_path(number + 1), pack_weights(self._distiller))
        self._forget_weights(number + 1 - WEIGHTS_KEPT)
        findings = self._diagnosed(looked_at, known, aggregated, weighed.findings)
        report = self.assess(number + 1, losses)
        distil_s = max(0.0, time.monotonic() - began_s - sum(report.seconds.values()))
        devices = tuple(each.device for each in deliveries)
        seconds = {"collect": collect_s, "distil": distil_s, **report.seconds}
        disagreement = _farthest(weighed.scores)
        report = replace(report, devices=devices, seconds=seconds, findings=findings, disagreement=disagreement)
        return Closed(report=report, standings=weighed.standings)

    def assess(self, rounds_done: int, losses: Mapping[str, float] | None = None) -> RoundReport:
        """Classifier, scores and release of the encoders as they are now.

        Raises:
            StateError: when the disk is full.
        """
        metrics = {name: value for name, value in (losses or {}).items() if math.isfinite(value)}
        began_s = time.monotonic()
        fitted = self._fit()
        fitted_s = time.monotonic()
        metrics |= self._scores(fitted)
        scored_s = time.monotonic()
        release = self._release(rounds_done, fitted, metrics)
        exported_s = time.monotonic()
        return RoundReport(
            round=rounds_done,
            devices=(),
            metrics=metrics,
            seconds={"classify": fitted_s - began_s, "score": scored_s - fitted_s, "export": exported_s - scored_s},
            release=release,
        )

    def _weighed(self, number: int, contributions: Sequence[Contribution], standings: Standings) -> Weighed:
        """The aggregate. Before anything has been learned the global knowledge says nothing of anybody's."""
        known = self._distiller.embed(view(self._plan, self._proxy, number)) if number else None
        return weigh(contributions, known, standings, self._rules, number)

    def _contribution(self, delivery: Delivery, blobs: BlobStore) -> Contribution:
        method = self._plan.method
        knowledge: dict[str, Knowledge] = {}
        for name, ref in delivery.knowledge.items():
            raw = blobs.get(ref)
            if raw is None:
                raise StateError(
                    f"{blobs.folder}: what {delivery.device} delivered is gone; restart to collect it anew",
                    catalogue.DELIVERY_GONE,
                )
            embedding, hidden = unpack_knowledge(
                raw,
                windows=self._plan.knowledge_rows,
                embedding=method.embedding,
                hidden=method.hidden if method.sends_hidden else None,
            )
            knowledge[name] = Knowledge(embedding=embedding, hidden=hidden)
        return Contribution(device=delivery.device, windows=delivery.windows, knowledge=knowledge, age=delivery.age)

    def _fit(self) -> dict[str, _Fitted]:
        """A classifier of each group. A failure here costs classifiers and scores, never the round."""
        labelled = self._datasets.labelled
        if labelled is None:
            return {}
        try:
            labelled = with_changed(self._plan, labelled)
            embedded = self._distiller.embed(labelled.arrays)
            return {
                name: _Fitted(
                    modalities=modalities,
                    classifier=fit_classifier(
                        _side_by_side(embedded, modalities), labelled.labels, len(self._datasets.classes)
                    ),
                )
                for name, modalities in self._groups().items()
            }
        except Exception:
            log.exception("the classifiers of this round failed; the round goes on without them")
            return {}

    def _scores(self, fitted: Mapping[str, _Fitted]) -> dict[str, float]:
        """Weighted F1 on the windows kept apart. A failure here costs the scores, never the round."""
        test = self._datasets.test
        if test is None:
            return {}
        try:
            embedded = self._distiller.embed(test.arrays)
            return {
                f"weighted_f1/{name}": weighted_f1(
                    test.labels,
                    each.classifier.predict(_side_by_side(embedded, each.modalities)),
                    len(self._datasets.classes),
                )
                for name, each in fitted.items()
            }
        except Exception:
            log.exception("the scores of this round failed; the round goes on without them")
            return {}

    def _release(self, rounds_done: int, fitted: Mapping[str, _Fitted], metrics: Mapping[str, float]) -> str:
        """The release's name, or "" when it could not be made: that is logged, and costs this release alone."""
        name = f"{self._federation}-{rounds_done:05d}"
        try:
            manifest = write_release(
                self.releases / f"{name}{SUFFIX}",
                plan=self._plan,
                federation=self._federation,
                round=rounds_done,
                encoders=self._encoders(),
                classifiers={
                    group: (each.modalities, each.classifier.weight, each.classifier.bias)
                    for group, each in fitted.items()
                },
                labels=self._datasets.classes if fitted else (),
                windows=self._datasets.proxy,
                metrics=metrics,
                sign=self._sign,
            )
        except ReleaseError as error:
            log.error("no release of this round: %s", error)
            return ""
        except StateError:
            raise
        except Exception:
            log.exception("no release of this round: the export failed; the round goes on without it")
            return ""
        worst = max(manifest.parity.values())
        log.info("release %s: onnxruntime and torch differ by %.1e at most", self.releases / name, worst)
        return name

    def _groups(self) -> dict[str, tuple[str, ...]]:
        """The classifiers that are made: one of each modality alone, and one of all."""
        names = self._distiller.model.modalities
        groups: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
        return groups if len(names) == 1 else groups | {FUSED: names}

    def _encoders(self) -> dict[str, Encoder]:
        encoders: dict[str, Encoder] = {}
        for name, module in self._distiller.model.encoders.items():
            assert isinstance(module, Encoder), name
            encoders[name] = module
        return encoders

    def _fresh(self) -> Distiller:
        return Distiller(self._plan, self._architectures, self._compute)

    def _is_sound(self, number: int) -> bool:
        """True when the encoders are finite, and so is what round `number` is to be sent, also in its encoding."""
        if not all(bool(torch.isfinite(each).all()) for each in self._distiller.state_dict().values()):
            return False
        try:
            self.knowledge(number)
        except ValueError:
            return False
        return True

    def _diagnosed(
        self,
        looked_at: Arrays,
        before: Arrays,
        aggregated: Mapping[str, Knowledge],
        of_devices: Sequence[Finding],
    ) -> tuple[Finding, ...]:
        """The signs of trouble; `before`: embeddings of what was looked at before distillation.

        `of_devices` are those of single devices, seen before. A failure here never costs the round.
        """
        try:
            rows = signs.rows_of(self._plan.knowledge_rows)
            known = self._distiller.embed(looked_at)
            target = {name: each.embedding[rows] for name, each in aggregated.items()}
            method = self._plan.method
            followed = (self._compared(arrays, target) for arrays in (before, known, target))
            return signs.bounded(
                [
                    *signs.too_little_transfer(method.transfer, method.temperature, *followed),
                    *signs.unrepresentative_proxy(known, self._labelled_embeddings()),
                    *signs.collapse(known),
                    *signs.lost_input(self._rebuilding_errors()),
                    *of_devices,
                ]
            )
        except Exception:
            log.exception("the diagnosis of this round failed; the round goes on without it")
            return ()

    def _compared(self, embeddings: Arrays, target: Arrays) -> Arrays:
        """The embeddings as distillation compares them: per modality of the target, or all of them fused."""
        common = {name: embeddings[name] for name in sorted(target)}
        fusion = self._distiller.fusion
        if fusion is None or not common:
            return common
        # What nobody sent counts as equal on both sides.
        blank = np.zeros_like(next(iter(common.values())))
        joined = np.concatenate([common.get(name, blank) for name in self._distiller.model.modalities], axis=1)
        fused: Floats = joined @ fusion.weight.detach().cpu().numpy().T
        return {FUSED: fused}

    def _labelled_embeddings(self) -> Arrays:
        """Global embeddings of labelled windows, evenly chosen."""
        labelled = self._datasets.labelled
        if labelled is None:
            return {}
        rows = signs.rows_of(len(labelled))
        return self._distiller.embed({name: array[rows] for name, array in labelled.arrays.items()})

    def _rebuilding_errors(self) -> dict[str, tuple[float, float]]:
        """Per modality, how far proxy windows are from what their own embedding rebuilds, and what another's does."""
        kind, model = self._plan.method.reconstruction, self._distiller.model
        rows = signs.rows_of(self._plan.proxy_windows, REBUILT_WINDOWS)
        windows = tensors({name: array[rows] for name, array in self._proxy.items()}, self._distiller.device)
        errors = {}
        with torch.no_grad():
            for name, embedding in model.encode(windows)[1].items():
                own, other = (model.decoders[name](each) for each in (embedding, embedding.roll(len(rows) // 2, 0)))
                errors[name] = (
                    float(reconstruction_distance(kind, own, windows[name])),
                    float(reconstruction_distance(kind, other, windows[name])),
                )
        return errors

    def _weights_path(self, rounds_done: int) -> Path:
        return self._folder / f"encoders-{rounds_done:05d}.weights"

    def _forget_weights(self, newest: int) -> None:
        """Remove the weights of `newest` rounds and fewer, and what interrupted writes left."""
        for path in self._folder.glob("encoders-*.weights"):
            rounds_done = path.stem.removeprefix("encoders-")
            if rounds_done.isdecimal() and int(rounds_done) <= newest:
                _remove(path)
        for path in self._folder.glob(".encoders-*.tmp"):
            _remove(path)


def _farthest(scores: Mapping[str, float]) -> dict[str, float]:
    """As many of the devices' scores as a report holds, in order of names."""
    kept = sorted(scores, key=lambda device: (-scores[device], device))[:SCORES_KEPT]
    return {device: round(scores[device], SCORE_DIGITS) for device in sorted(kept)}


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(
            f"{path}: cannot be removed ({error.strerror}); mend permissions", catalogue.of_disk(error)
        ) from error


def _side_by_side(embedded: Arrays, modalities: Sequence[str]) -> Floats:
    joined: Floats = np.concatenate([embedded[name] for name in modalities], axis=1)
    return joined
