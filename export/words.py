"""What a release says about itself, in words, and in what two of them differ. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from export.manifest import EncoderEntry, Manifest
from mekt.schema import plain


def kilobytes(size_bytes: int) -> str:
    """A size for people: kilobytes of 1000."""
    return f"{size_bytes / 1000:,.1f} kB"


def manifest_lines(manifest: Manifest) -> list[str]:
    """All about a release, for people."""
    window = manifest.window
    lines = [
        f"federation   {manifest.federation}, after round {manifest.round}"
        if manifest.round
        else f"federation   {manifest.federation}, before the first round",
        f"windows      {window.window_s:g} s, one each {window.stride_s:g} s",
        f"classes      {', '.join(manifest.labels) or 'none'}",
        f"format       {manifest.format}, ONNX opset {manifest.opset}",
    ]
    if manifest.measured is not None:
        lines.append(f"measured     on {manifest.measured.machine}, onnxruntime {manifest.measured.onnxruntime}")
    for encoder in manifest.encoders:
        lines += _encoder_lines(manifest, encoder)
    for name, entry in sorted(manifest.classifiers.items()):
        lines += ["", f"classifier {name}, of {', '.join(entry.modalities)}", f"  {_file(manifest, entry.file)}"]
        score = manifest.metrics.get(f"weighted_f1/{name}")
        lines += [] if score is None else [f"  weighted F1 {score:.3f} on the coordinator's test windows"]
    others = {name: value for name, value in sorted(manifest.metrics.items()) if not name.startswith("weighted_f1/")}
    if others:
        lines += ["", "learning: " + ", ".join(f"{name} {value:.3g}" for name, value in others.items())]
    return lines


def _encoder_lines(manifest: Manifest, encoder: EncoderEntry) -> Iterator[str]:
    modality = encoder.modality
    shape = " x ".join(str(each) for each in modality.shape)
    yield ""
    yield f"encoder {modality.name}: {shape} at {modality.rate_hz:g} Hz, in {modality.unit}"
    yield (
        f"  {encoder.architecture}, {encoder.parameters} parameters, {encoder.operations} multiply-adds a window, "
        f"embedding of {encoder.embedding}"
    )
    yield f"  {_file(manifest, encoder.file)}"
    if encoder.int8 is not None:
        lost = ", ".join(f"{name} {value:+.4f}" for name, value in sorted(encoder.int8.f1_lost.items()))
        yield f"  {_file(manifest, encoder.int8.file)}, int8 ({encoder.int8.how}); F1 lost: {lost}"
    if encoder.step is not None:
        step = encoder.step
        words = f"for streams: {step.samples} samples and {step.operations} multiply-adds a step"
        yield f"  {_file(manifest, step.file)}, {words}"
    if len(encoder.files) > 1:
        yield f"  by default wearables take {manifest.file_to_run(encoder)} for whole windows"


def _file(manifest: Manifest, file: str) -> str:
    words = [kilobytes(manifest.files[file].size_bytes)]
    if file in manifest.parity:
        words.append(f"within {manifest.parity[file]:.1e} of torch")
    if manifest.measured is not None:
        words.append(f"{manifest.measured.latency_ms[file]:.3f} ms")
    return f"{file}: {', '.join(words)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A number in one release and in the other; None where it has none."""

    before: float | None
    after: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """In what two releases differ, the second from the first; what is the same in both is not in it.

    `models`: the files with other content, by "added", "removed" or "changed". `agreement`: per classifier that both
    have, in percent, where recordings were played through both.
    """

    scores: Mapping[str, Change] = field(default_factory=dict)
    labels_added: tuple[str, ...] = ()
    labels_removed: tuple[str, ...] = ()
    modalities_added: tuple[str, ...] = ()
    modalities_removed: tuple[str, ...] = ()
    window_s: Change | None = None
    stride_s: Change | None = None
    sizes: Mapping[str, Change] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    latency_ms: Mapping[str, Change] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)
    windows: int = 0


def difference(before: Manifest, after: Manifest) -> Difference:
    """In what the second release differs from the first."""
    one, other = before.files, after.files
    models = {name: "changed" for name in one.keys() & other.keys() if one[name].sha256 != other[name].sha256}
    models |= dict.fromkeys(other.keys() - one.keys(), "added") | dict.fromkeys(one.keys() - other.keys(), "removed")
    return Difference(
        scores=_changes(before.metrics, after.metrics),
        labels_added=_missing(after.labels, before.labels),
        labels_removed=_missing(before.labels, after.labels),
        modalities_added=_missing(_names(after), _names(before)),
        modalities_removed=_missing(_names(before), _names(after)),
        window_s=_change(before.window.window_s, after.window.window_s),
        stride_s=_change(before.window.stride_s, after.window.stride_s),
        sizes=_changes(_sizes(before), _sizes(after)),
        models=dict(sorted(models.items())),
        latency_ms=_changes(_latencies(before), _latencies(after)),
    )


def difference_lines(found: Difference) -> list[str]:
    """A difference for people; one line where there is none."""
    lines = [f"{name:<28} {_number(each.before)} -> {_number(each.after)}" for name, each in found.scores.items()]
    for what, names in (
        ("classes added", found.labels_added),
        ("classes removed", found.labels_removed),
        ("modalities added", found.modalities_added),
        ("modalities removed", found.modalities_removed),
    ):
        lines += [f"{what:<28} {', '.join(names)}"] if names else []
    for what, change in (("window in s", found.window_s), ("stride in s", found.stride_s)):
        lines += [] if change is None else [f"{what:<28} {_number(change.before)} -> {_number(change.after)}"]
    for file, how in found.models.items():
        size = found.sizes.get(file)
        bytes_ = "" if size is None else f", {_size(size.before)} -> {_size(size.after)}"
        late = found.latency_ms.get(file)
        ms = "" if late is None else f", {_number(late.before)} -> {_number(late.after)} ms"
        lines.append(f"{file:<28} {how}{bytes_}{ms}")
    for name, percent in found.agreement.items():
        lines.append(f"{name:<28} agreement {percent:.1f}%, the mean over classes, of {found.windows} windows")
    return lines or ["no difference"]


def difference_table(found: Difference) -> dict[str, object]:
    """A difference for machines."""
    table: dict[str, object] = plain(found)
    return table


def _names(manifest: Manifest) -> tuple[str, ...]:
    return tuple(each.name for each in manifest.modalities)


def _sizes(manifest: Manifest) -> dict[str, float]:
    return {name: entry.size_bytes for name, entry in manifest.files.items()}


def _latencies(manifest: Manifest) -> Mapping[str, float]:
    return {} if manifest.measured is None else manifest.measured.latency_ms


def _missing(of: tuple[str, ...], among: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for each in of if each not in among)


def _change(before: float | None, after: float | None) -> Change | None:
    return None if before == after else Change(before=before, after=after)


def _changes(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Change]:
    found = {name: _change(before.get(name), after.get(name)) for name in sorted({*before, *after})}
    return {name: change for name, change in found.items() if change is not None}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _size(value: float | None) -> str:
    return "-" if value is None else kilobytes(int(value))
