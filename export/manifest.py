"""What a release says about itself: its models, their inputs, classes, files and how faithful the export is.

In a release it is `manifest.json`: sorted keys, indented, with a `digest` over all the rest. Exactly these bytes are
accepted back, so that any change of any byte is found.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any

from mekt import catalogue
from mekt.errors import ReleaseError
from mekt.modality import LARGEST_WINDOW_VALUES, Modality, ModalityName, Scaling, WindowSpec
from mekt.schema import Bounds, Count, Name, SchemaError, build, plain

FORMAT = 1
# The coordinator's signature on the bytes of the manifest (mekt.signature); where there is no authority, there is none.
SIGNATURE = "signature"
MANIFEST = "manifest.json"
LARGEST_RELEASE_BYTES = 1 << 28
SUFFIX = ".zip"

Sha256 = Annotated[str, Bounds(pattern=r"[0-9a-f]{64}")]
Width = Annotated[int, Bounds(low=1, high=1024)]
# Printable: both are written to terminals and into lines of text.
Label = Annotated[str, Bounds(pattern=r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,64}")]
Metric = Annotated[str, Bounds(pattern=r"[\x21-\x7e]{1,64}")]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file by its content."""

    sha256: Sha256
    size_bytes: Annotated[int, Bounds(low=1, high=LARGEST_RELEASE_BYTES)]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderEntry:
    """An encoder: the modality that it takes, scaled by `scaling`, and the embedding width that it gives."""

    modality: Modality
    scaling: Scaling
    architecture: Annotated[str, Bounds(shortest=1, longest=32)]
    embedding: Width
    parameters: Count
    file: Name

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
    """All about a release. `labels` names the classes by index; `parity` is per file the largest difference to torch.

    Raises:
        ValueError: when the parts do not agree with each other.
    """

    format: Annotated[int, Bounds(low=1)] = FORMAT
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
        used = [each.file for each in self.encoders] + [each.file for each in self.classifiers.values()]
        if len(set(used)) != len(used) or set(used) != set(self.files) or self.files.keys() & {MANIFEST, SIGNATURE}:
            raise ValueError("files: expected exactly one entry for each encoder and classifier")
        if set(self.parity) != set(self.files):
            raise ValueError("parity: expected exactly one number for each file")

    def encoder(self, modality: str) -> EncoderEntry | None:
        """The encoder of this modality, or None when the release has none."""
        return next((each for each in self.encoders if each.modality.name == modality), None)

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
