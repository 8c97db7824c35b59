"""The signs of a federation that learns badly, each named, with its evidence and what to do about it. Pure.

What is looked at are embeddings of the same `rows_of` the proxy set throughout, which bounds the cost. Thresholds stand
between what healthy federations gave and what provoked ones did, on HAPT (without its test persons) and the simulator.

Shapes: N rows of the proxy set, L labelled windows, D embedding width.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from coordinator.disagreement import Distance
from coordinator.round import RoundRules
from mekt.learning import Arrays
from mekt.losses import transfer_loss
from mekt.messages import FINDINGS_KEPT, LONGEST_SENTENCE, Finding, RoundReport, Sign
from mekt.plan import Transfer
from sensors.source import Floats

# More windows than these say nothing new.
MOST_ROWS = 512
# Of the knowledge of each of many devices; embeddings of fewer windows begin to look similar by chance.
MANY_DEVICES = 16
MOST_ROWS_OF_MANY = 128
# Devices that every one is compared with; with more it costs much and says the same.
MOST_REFERENCES = 16
FEWEST_COMPARED = 3

# A labelled window is out of reach when it is farther from every proxy window than this share of the pairs of proxy
# windows are apart: what is usual among them, whatever their overlap in time.
REACH = 2 / 3
# Share out of reach. Healthy: 0.04 at most, and 0.17 where 19 of 20 windows are of people at rest. Proxy sets of people
# who only lie: 0.48 to 1, only walk: 0.26 to 0.66 (acc), never walk: 0.29 to 0.6 (gyro).
MOST_OUT_OF_REACH = 0.2
# Of fewer labelled windows a share says nothing.
FEWEST_LABELLED = 10
# Share of the aggregate's variance that distillation leaves; at 1 the encoders might as well know nothing of it.
# Healthy: 0.04 to 0.74. With eta 0, 0.01 and 0.1: 1.1 to 90.
MOST_UNEXPLAINED = 1.0
# From here on, what hardly fell is too little as well. The healthy 0.74 had fallen by a quarter; with eta 1 and 10
# epochs such values did not fall at all.
MUCH_UNEXPLAINED = 0.5
HARDLY_FELL = 0.9
# Deviation over the proxy set by size (root mean square). Healthy: 0.45 to 0.9, and 0.1 before anything is learned. At
# 0.01 float16 has some twenty steps left.
LEAST_SPREAD = 0.01
# Directions that embeddings differ in: (sum of the covariance's eigenvalues)^2 / sum of their squares. Healthy: 1.05
# and more with mse, 1.004 with cosine. A line has 1, rounded to float16 up to 1.000001.
FEWEST_DIRECTIONS = 1.001
# Error of a window rebuilt from its own embedding by that from another window's. Healthy: 0.04 to 0.58; untrained: 1.
MOST_OF_BLIND_ERROR = 0.95
# How much a device's embeddings vary, by the median of all. Healthy: 0.55 to 2.1. A constant signal: 0.07; windows
# times 9.81: 2.5 to 3.6; knowledge times 10: 5.4 to 9.2.
MOST_OUT_OF_SCALE = 3.0
# Similarity to the most similar other device. Healthy: 0.45 and more, 0.27 for one LSTM among convolutions. Windows in
# another order: 0.05 to 0.10.
LEAST_SIMILAR = 0.2
SIMILAR = 0.5
# Correlation with the best correlated other. Healthy: 0.39 and more once the others reach 0.6, 0.11 for one LSTM among
# convolutions. Turned embeddings: around 0.
LEAST_ALIGNED = 0.05
ALIGNED = 0.6
# Disagreement with the fleet, and the distance that it must come to (`coordinator.disagreement`): what errs alike would
# pass all others. Healthy: up to 1.8, at distances up to 0.5; once 2.2 at 0.55, of four architectures 2.5, and 2.0 at
# 0.60. One, two or three that err, less than half: 1.64 and more, and 0.65 and more (0.58 in the first round).
FAR = RoundRules().odd_above
FAR_APART = 0.63

_TINY = 1e-12

BETTER_PROXY = "record a proxy set that holds the activities, people and mountings of the labelled windows"
MORE_TRANSFER = "raise eta or distil_epochs; if that does not help, look at devices whose knowledge disagrees"
MEND_PROXY = "check that the proxy set is not constant; lower eta, or raise embedding"
MEND_DEVICE = "check that its sensor is not stuck and its unit is right; where all devices do so, lower alpha"
MEND_LEARNING = "raise distil_epochs or distil_rate, or lower eta"
MEND_ODD = "check its sensor's unit, axes, mounting and clock, and its log; stop it if that does not help"


def rows_of(count: int, most: int = MOST_ROWS) -> NDArray[np.intp]:
    """Which of so many windows are looked at: `most` of them, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.intp)


def device_rows_of(count: int, devices: int) -> NDArray[np.intp]:
    """Which of so many proxy windows are looked at in the knowledge of each device."""
    return rows_of(count, MOST_ROWS if devices <= MANY_DEVICES else MOST_ROWS_OF_MANY)


def unrepresentative_proxy(proxy: Arrays, labelled: Arrays) -> tuple[Finding, ...]:
    """Per modality, whether global embeddings (L, D) of labelled windows lie among those (N, D) of the proxy set."""
    return tuple(_found(_reached(proxy[name], labelled[name], name) for name in sorted(set(proxy) & set(labelled))))


def too_little_transfer(
    kind: Transfer, temperature: float, before: Arrays, after: Arrays, aggregate: Arrays
) -> tuple[Finding, ...]:
    """Per modality, whether the global embeddings `before` and `after` distillation, (N, D), came to the aggregate's.

    Distances are those that were learned from, `kind` at `temperature`, by that of embeddings that tell nothing; with
    "mse" that is the unexplained share of the aggregate's variance.
    """
    return tuple(
        _found(
            _followed(kind, temperature, before[name], after[name], aggregate[name], name)
            for name in sorted(set(before) & set(after) & set(aggregate))
        )
    )


def collapse(embeddings: Arrays, device: str = "") -> tuple[Finding, ...]:
    """Per modality, whether embeddings (N, D) of the proxy set, the global ones or a device's, tell windows apart."""
    return tuple(_found(_collapsed(embeddings[name], name, device) for name in sorted(embeddings)))


def lost_input(errors: Mapping[str, tuple[float, float]]) -> tuple[Finding, ...]:
    """Per modality, whether reconstruction follows its input: its error from the own embedding and from another's."""
    found = []
    for name, (own, other) in sorted(errors.items()):
        if own > MOST_OF_BLIND_ERROR * other:
            evidence = (
                f"rebuilding a proxy window from its own embedding leaves {own / max(other, _TINY):.0%} of the error "
                "that another window's embedding leaves; learned encoders leave some 5 to 60 %"
            )
            found.append(_finding("collapse", evidence, modality=name, remedy=MEND_LEARNING))
    return tuple(found)


def odd_devices(
    knowledge: Mapping[str, Arrays], far: Mapping[str, Mapping[str, Distance]] = {}, above: float = FAR
) -> tuple[Finding, ...]:
    """Devices whose knowledge, per device and modality (N, D), disagrees with that of all others, two at least.

    Three things spoil an average, and each is looked at alone: embeddings that vary much more or less than the others'
    (a unit), that tell other windows apart (a shifted clock, another sensor), or that do so in other directions (a
    device that follows nobody). An added constant spoils nothing, and what has collapsed takes no part. Two that err
    alike pass all three; they are seen by their distances `far` from the whole fleet, where less than half err.
    """
    found: list[Finding] = []
    for name in sorted({name for arrays in knowledge.values() for name in arrays}):
        sent = {
            device: _centred(arrays[name])
            for device, arrays in sorted(knowledge.items())
            if name in arrays and _collapsed(arrays[name], name, device) is None
        }
        odd = _odd(sent, name) if len(sent) >= FEWEST_COMPARED else []
        named = {each.device for each in odd}
        odd += _found(_far(far, device, name, above) for device in sent if device not in named)
        found += sorted(odd, key=lambda each: each.device)
    return tuple(found)


def bounded(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """As many findings as a report holds, what is about the whole federation first."""
    return tuple(sorted(findings, key=lambda each: each.device != "")[:FINDINGS_KEPT])


def news(earlier: Sequence[RoundReport], report: RoundReport) -> list[str]:
    """What a report's findings say that the last one before did not: a line for each that came, and that went.

    One whose numbers alone have changed is not new.
    """
    before = {each.subject for each in earlier[-1].findings} if earlier else set()
    came = [f"{each}" for each in report.findings if each.subject not in before]
    went = sorted(before - {each.subject for each in report.findings})
    return [f"round {report.round}: {line}" for line in [*came, *(f"no more {subject}" for subject in went)]]


def _reached(proxy_ND: Floats, labelled_LD: Floats, name: str) -> Finding | None:
    if len(labelled_LD) < FEWEST_LABELLED or len(proxy_ND) < 2:
        return None
    pairs = np.triu_indices(len(proxy_ND), 1)
    reach = float(np.quantile(_distances(proxy_ND, proxy_ND)[pairs], REACH))
    share = float((_distances(labelled_LD, proxy_ND).min(axis=1) > reach).mean())
    if share <= MOST_OUT_OF_REACH:
        return None
    evidence = (
        f"{share:.0%} of {len(labelled_LD)} labelled windows are farther from all {len(proxy_ND)} proxy windows than "
        f"two of three pairs of these are apart ({reach:.3g}); up to {MOST_OUT_OF_REACH:.0%} is usual"
    )
    return _finding("unrepresentative-proxy", evidence, modality=name, remedy=BETTER_PROXY)


def _followed(
    kind: Transfer, temperature: float, before_ND: Floats, after_ND: Floats, aggregate_ND: Floats, name: str
) -> Finding | None:
    if _collapsed(aggregate_ND, name, "") is not None:
        return None
    teacher = _tensor(aggregate_ND)
    # Distances between windows, all of them equal, are those of zeros too, and there without rounding.
    blind = torch.zeros_like(teacher) if kind == "relational" else teacher.mean(dim=0).expand_as(teacher)
    whole = max(_TINY, float(transfer_loss(kind, blind, teacher, temperature)))
    was = float(transfer_loss(kind, _tensor(before_ND), teacher, temperature)) / whole
    now = float(transfer_loss(kind, _tensor(after_ND), teacher, temperature)) / whole
    if now <= MOST_UNEXPLAINED and (now <= MUCH_UNEXPLAINED or now <= HARDLY_FELL * was):
        return None
    evidence = (
        f"distillation left {now:.0%} of the aggregate's variance over {len(teacher)} proxy windows unexplained "
        f"({kind}); before it was {was:.0%}"
    )
    return _finding("too-little-transfer", evidence, modality=name, remedy=MORE_TRANSFER)


def _collapsed(x_ND: Floats, name: str, device: str) -> Finding | None:
    """The finding, if these embeddings have collapsed."""
    remedy = MEND_DEVICE if device else MEND_PROXY
    size = float(np.sqrt(np.square(x_ND, dtype=np.float64).mean()))
    centred = _centred(x_ND)
    spread = float(np.sqrt(np.square(centred).mean()))
    if spread < LEAST_SPREAD * size or size == 0:
        evidence = f"over {len(x_ND)} proxy windows embeddings of size {size:.3g} deviate by {spread:.3g}"
        return _finding("collapse", evidence, modality=name, device=device, remedy=remedy)
    directions = _directions(centred)
    if min(x_ND.shape) > 2 and directions < FEWEST_DIRECTIONS:
        evidence = (
            f"the embeddings of {len(x_ND)} proxy windows differ in {directions:.4f} directions of {x_ND.shape[1]}"
        )
        return _finding("collapse", evidence, modality=name, device=device, remedy=remedy)
    return None


def _directions(centred_ND: NDArray[np.float64]) -> float:
    """The participation ratio, between 1 and D: (sum of eigenvalues)^2 / sum of squares, of the covariance matrix."""
    scaled = centred_ND / np.abs(centred_ND).max()
    product = scaled @ scaled.T if len(scaled) < scaled.shape[1] else scaled.T @ scaled
    return float(np.trace(product) ** 2 / np.square(product).sum())


def _odd(sent: Mapping[str, NDArray[np.float64]], name: str) -> list[Finding]:
    """Those of centred knowledge (N, D), per device, that are out of scale, dissimilar or not aligned."""
    sizes = {device: float(np.linalg.norm(array)) for device, array in sent.items()}
    units = {device: array / sizes[device] for device, array in sent.items()}
    tempered = {device: _tempered(array) for device, array in units.items()}
    similar = _best(tempered, lambda one, others: np.square(one.T @ others).sum(axis=(1, 2)))
    aligned = _best(units, lambda one, others: np.tensordot(others, one, axes=2))
    similar_others, aligned_others = (float(np.median(list(each.values()))) for each in (similar, aligned))
    usual = float(np.median(list(sizes.values())))
    found = []
    for device, size in sizes.items():
        ratio = size / usual
        if not 1 / MOST_OUT_OF_SCALE <= ratio <= MOST_OUT_OF_SCALE:
            evidence = f"its embeddings vary {ratio:.2g} times as much as the median of {len(sent)} devices' do"
        elif similar[device] < LEAST_SIMILAR and similar_others >= SIMILAR:
            evidence = (
                f"its embeddings are similar to those of the {len(sent) - 1} others by {similar[device]:.2f} at best "
                f"(0: unrelated, 1: alike); {similar_others:.2f} is the median here"
            )
        elif aligned[device] < LEAST_ALIGNED and aligned_others >= ALIGNED:
            evidence = (
                f"its embeddings correlate with those of the {len(sent) - 1} others by {aligned[device]:.2f} at best; "
                f"{aligned_others:.2f} is the median here"
            )
        else:
            continue
        found.append(_finding("odd-device", evidence, modality=name, device=device, remedy=MEND_ODD))
    return found


def _far(far: Mapping[str, Mapping[str, Distance]], device: str, name: str, above: float) -> Finding | None:
    """The finding, if this device is far from the fleet."""
    each = far.get(device, {}).get(name)
    if each is None or each.disagreement <= above or each.distance < FAR_APART:
        return None
    evidence = (
        f"its embeddings are {each.distance:.2f} from the median of all (0: the same, 0.71: unrelated, 1: opposite), "
        f"{each.disagreement:.1f} times as far as is usual"
    )
    return _finding("odd-device", evidence, modality=name, device=device, remedy=MEND_ODD)


def _best(
    arrays: Mapping[str, NDArray[np.float64]],
    likeness: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
) -> dict[str, float]:
    """For each device how like the most alike of the others is; `likeness` compares (N, D) with (M, N, D)."""
    names = list(arrays)
    references = [names[at] for at in rows_of(len(names), MOST_REFERENCES)]
    stacked = np.stack([arrays[name] for name in references])
    best = {}
    for name, array in arrays.items():
        likes = zip(references, likeness(array, stacked).tolist(), strict=True)
        best[name] = max(like for other, like in likes if other != name)
    return best


def _tempered(x_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same directions with the roots of their amplitudes, so that the strongest is not all that is compared.

    Scaled such that |A^T B|^2 of two is their linear CKA (Kornblith et al., arXiv 1905.00414); no rotation changes it.
    """
    left, amplitudes, _ = np.linalg.svd(x_ND, full_matrices=False)
    tempered: NDArray[np.float64] = left * np.sqrt(amplitudes / np.linalg.norm(amplitudes))
    return tempered


def _centred(x_ND: NDArray[np.floating]) -> NDArray[np.float64]:
    exact: NDArray[np.float64] = x_ND.astype(np.float64)
    exact -= exact.mean(axis=0)
    return exact


def _distances(one_ND: Floats, other_LD: Floats) -> NDArray[np.float64]:
    """All distances (N, L) between rows."""
    one, other = one_ND.astype(np.float64), other_LD.astype(np.float64)
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1) - 2 * one @ other.T
    distances: NDArray[np.float64] = np.sqrt(np.maximum(squares, 0))
    return distances


def _tensor(x_ND: Floats) -> torch.Tensor:
    return torch.from_numpy(np.array(x_ND, dtype=np.float32))


def _finding(sign: Sign, evidence: str, *, modality: str, device: str = "", remedy: str) -> Finding:
    return Finding(
        name=sign,
        modality=modality,
        device=device,
        evidence=evidence[:LONGEST_SENTENCE],
        remedy=remedy[:LONGEST_SENTENCE],
    )


def _found(each: Iterable[Finding | None]) -> list[Finding]:
    return [finding for finding in each if finding is not None]
