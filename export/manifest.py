"""What a release says about itself: its models, their inputs, classes, files and how faithful the export is.

In a release it is `manifest.json`: sorted keys, indented, with a `digest` over all the rest. Exactly these bytes are
accepted back, so that any change of any byte is found.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from mekt import catalogue
from mekt.errors import ReleaseError
from mekt.modality import LARGEST_WINDOW_VALUES, Modality, ModalityName, Scaling, WindowSpec
from mekt.schema import Bounds, Count, Name, Positive, SchemaError, build, plain

FORMAT = 2
# The coordinator's signature on the bytes of the manifest (mekt.signature); where there is no authority, there is none.
SIGNATURE = "signature"
MANIFEST = "manifest.json"
LARGEST_RELEASE_BYTES = 1 << 28
# More than any manifest within its bounds has. Text of JSON takes up to thirty times its size in memory.
LARGEST_MANIFEST_BYTES = 1 << 22
SUFFIX = ".zip"
# Another form of an encoder is kept only if it costs no classifier more weighted F1 than this.
MOST_F1_LOST = 0.005
# Steps may be so many samples longer or shorter than the way from one window to the next: decimals are rounded.
MOST_OFF = 0.01

Sha256 = Annotated[str, Bounds(pattern=r"[0-9a-f]{64}")]
Width = Annotated[int, Bounds(low=1, high=1024)]
# Printable: both are written to terminals and into lines of text.
Label = Annotated[str, Bounds(pattern=r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,64}")]
Metric = Annotated[str, Bounds(pattern=r"[\x21-\x7e]{1,64}")]
F1Lost = Annotated[dict[Name, Annotated[float, Bounds(low=-1, high=MOST_F1_LOST)]], Bounds(shortest=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file by its content."""

    sha256: Sha256
    size_bytes: Annotated[int, Bounds(low=1, high=LARGEST_RELEASE_BYTES)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Form:
    """An encoder in whole numbers of 8 bits, in the place of `EncoderEntry.file`: weights alone ("dynamic"), or all.

    `f1_lost` is by how much weighted F1 falls, per classifier that uses the encoder, with this form in its place.
    """

    file: Name
    how: Literal["static", "dynamic"]
    f1_lost: F1Lost


@dataclass(frozen=True, kw_only=True, slots=True)
class StepForm:
    """An encoder of a stream: of its newest samples, and a state, the embedding of the window that ends with them.

    The model takes the modality (1, `takes`, ...), normalised: the newest samples, of which `samples` are new since the
    step before, and every state (1, *shape) by its name. It gives `embedding` (1, D), and every new state by its name
    behind `next_`. A stream begins with states of zeros, before its first sample were zeros, and what is given is a
    window's embedding once `history` samples were seen. `operations` are the multiply-adds of one step.
    """

    file: Name
    samples: Count
    takes: Count
    history: Count
    state: Annotated[dict[Name, Annotated[tuple[Count, ...], Bounds(shortest=1, longest=4)]], Bounds(longest=8)]
    operations: Count
    f1_lost: F1Lost

    def __post_init__(self) -> None:
        if sum(math.prod(shape) for shape in self.state.values()) > LARGEST_WINDOW_VALUES:
            raise ValueError(f"state: holds more than {LARGEST_WINDOW_VALUES} values")
        if not self.samples <= self.takes <= self.history:
            raise ValueError("takes: expected at least the samples that are new, at most those of the history")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Milliseconds of one window, or one step, through each file: medians on one thread of `machine`."""

    machine: Label
    onnxruntime: Label
    latency_ms: dict[Name, Positive]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderEntry:
    """An encoder: the modality that it takes, scaled by `scaling`, and the embedding width that it gives.

    `operations` are the multiply-adds of one window. `int8` and `step` are other forms of it, in a finished release.
    """

    modality: Modality
    scaling: Scaling
    architecture: Annotated[str, Bounds(shortest=1, longest=32)]
    embedding: Width
    parameters: Count
    operations: Count
    file: Name
    int8: Int8Form | None = None
    step: StepForm | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files of all its forms, the encoder as it was trained first."""
        return (self.file, *(form.file for form in (self.int8, self.step) if form is not None))

    def __post_init__(self) -> None:
        if not len(self.scaling.mean) == len(self.scaling.std) == self.modality.channels:
            raise ValueError(f"scaling: expected {self.modality.channels} means and deviations")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierEntry:
    """A linear classifier: the modalities whose embeddings it takes, in this order side by side."""

    modalities: Annotated[tuple[ModalityName, ...], Bounds(shortest=1, longest=16)]
    file: Name


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """All about a release. `labels` names the classes by index.

    `parity` is the largest difference to torch, per encoder and classifier as they were trained. `measured` is there in
    a finished release.

    Raises:
        ValueError: when the parts do not agree with each other.
    """

    format: Annotated[int, Bounds(low=FORMAT)] = FORMAT
    federation: Name
    round: Annotated[int, Bounds(low=0, high=1_000_000_000)]
    opset: Annotated[int, Bounds(low=1, high=1000)]
    window: WindowSpec
    encoders: Annotated[tuple[EncoderEntry, ...], Bounds(shortest=1, longest=16)]
    classifiers: dict[Name, ClassifierEntry]
    labels: Annotated[tuple[Label, ...], Bounds(longest=1024)]
    files: dict[Name, FileEntry]
    metrics: Annotated[dict[Metric, float], Bounds(longest=256)]
    parity: dict[Name, Annotated[float, Bounds(low=0)]]
    measured: Measured | None = None

    def __post_init__(self) -> None:
        names = [each.modality.name for each in self.encoders]
        if len(set(names)) != len(names):
            raise ValueError("encoders: a modality occurs twice")
        for each in self.encoders:
            if self.window.window_s * each.modality.rate_hz * math.prod(each.modality.shape) > LARGEST_WINDOW_VALUES:
                raise ValueError(f"a window of {each.modality.name} holds more than {LARGEST_WINDOW_VALUES} values")
        for name, classifier in self.classifiers.items():
            if len(set(classifier.modalities)) != len(classifier.modalities):
                raise ValueError(f"classifiers.{name}.modalities: a name occurs twice")
            if not set(classifier.modalities) <= set(names):
                raise ValueError(f"classifiers.{name}.modalities: one has no encoder here")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: a name occurs twice")
        if self.classifiers and not self.labels:
            raise ValueError("labels: the classifiers have none")
        for each in self.encoders:
            if each.step is not None and each.step.takes > self.window.samples(each.modality):
                raise ValueError(f"{each.step.file}: takes more samples than a window has")
            users = self.users(each.modality.name)
            for form in (each.int8, each.step):
                if form is not None and set(form.f1_lost) != users:
                    raise ValueError(f"{form.file}: f1_lost: expected exactly one number for each of {sorted(users)}")
        models = [each.file for each in self.classifiers.values()]
        used = [file for each in self.encoders for file in each.files] + models
        if len(set(used)) != len(used) or set(used) != set(self.files) or self.files.keys() & {MANIFEST, SIGNATURE}:
            raise ValueError("files: expected exactly one entry for each form of an encoder and each classifier")
        if set(self.parity) != {*models, *(each.file for each in self.encoders)}:
            raise ValueError("parity: expected exactly one number for each encoder and classifier")
        if self.measured is not None and set(self.measured.latency_ms) != set(self.files):
            raise ValueError("measured.latency_ms: expected exactly one number for each file")

    def encoder(self, modality: str) -> EncoderEntry | None:
        """The encoder of this modality, or None when the release has none."""
        return next((each for each in self.encoders if each.modality.name == modality), None)

    def users(self, modality: str) -> set[str]:
        """The classifiers that use the encoder of this modality."""
        return {name for name, each in self.classifiers.items() if modality in each.modalities}

    def file_to_run(self, encoder: EncoderEntry) -> str:
        """The file that gives whole windows' embeddings best: the smallest that is not slower, as trained in doubt."""
        if self.measured is None or encoder.int8 is None:
            return encoder.file
        latency_ms = self.measured.latency_ms
        fast = [each for each in (encoder.file, encoder.int8.file) if latency_ms[each] <= latency_ms[encoder.file]]
        return min(fast, key=lambda each: self.files[each].size_bytes)

    def steps_to_run(self, encoder: EncoderEntry, stride_s: float) -> int:
        """How many steps lead from one window to the next, so far apart; 0 where whole windows are computed faster.

        In doubt they are: without figures, and where no number of steps is as long, to a hundredth of a sample, or two
        windows have too little in common for it.
        """
        form = encoder.step
        if self.measured is None or form is None:
            return 0
        stride, samples = stride_s * encoder.modality.rate_hz, self.window.samples(encoder.modality)
        steps = round(stride / form.samples)
        new = steps * form.samples
        fit = abs(new - stride) <= MOST_OFF and new < samples and new - form.samples + form.takes <= samples
        latency_ms = self.measured.latency_ms
        return steps if fit and steps * latency_ms[form.file] < latency_ms[self.file_to_run(encoder)] else 0

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the release can take, in the order of its encoders."""
        return tuple(each.modality for each in self.encoders)


def pack_manifest(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`; equal manifests have equal bytes.

    Raises:
        ReleaseError: naming every field that is out of its bounds.
    """
    try:
        body = plain(build(Manifest, plain(manifest)))
    except SchemaError as error:
        raise ReleaseError(_listed(error), catalogue.RELEASE_NOT_MADE) from error
    return _text(body | {"digest": hashlib.sha256(_text(body)).hexdigest()})


def unpack_manifest(raw: bytes) -> Manifest:
    """The manifest in the bytes of a `manifest.json`.

    Raises:
        ReleaseError: for any bytes but those that `pack_manifest` gives, and for a format newer than this one.
    """
    again = "copy the release again from the coordinator"
    if len(raw) > LARGEST_MANIFEST_BYTES:
        raise ReleaseError(
            f"{MANIFEST}: has more than {LARGEST_MANIFEST_BYTES} bytes; {again}", catalogue.RELEASE_DAMAGED
        )
    try:
        body = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{MANIFEST}: not JSON text ({error}); {again}", catalogue.RELEASE_DAMAGED) from error
    if not isinstance(body, dict):
        raise ReleaseError(f"{MANIFEST}: expected a table; {again}", catalogue.RELEASE_DAMAGED)
    version = body.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise ReleaseError(
            f"{MANIFEST}: format {version} is newer than {FORMAT}, the newest known here; install a newer Mekt",
            catalogue.RELEASE_TOO_NEW,
        )
    body.pop("digest", None)
    try:
        manifest = build(Manifest, body)
    except SchemaError as error:
        raise ReleaseError(f"{_listed(error)}\n{MANIFEST} is damaged; {again}", catalogue.RELEASE_DAMAGED) from error
    if raw != pack_manifest(manifest):
        raise ReleaseError(
            f"{MANIFEST}: changed since it was written (its digest differs); {again}", catalogue.RELEASE_DAMAGED
        )
    return manifest


def _listed(error: SchemaError) -> str:
    return "\n".join(f"{MANIFEST}: {problem}" for problem in error.problems)


def _text(body: dict[str, Any]) -> bytes:
    return (json.dumps(body, indent=2, sort_keys=True, allow_nan=False) + "\n").encode("utf-8")
