"""Summaries as Markdown tables: mean ± standard deviation, units in the headers, the best federated row in bold."""

from collections.abc import Callable, Sequence

from bench.summary import PARAMETERS, TARGET_SHARE, WORK, Experiment, Row, Sample, Section

KILOBYTE = 1e3
# A round of 10 of HAPT's 23 clients with 2 local epochs, by the authors' published float64 code.
PUBLISHED_ROUND_S = 115.0
PUBLISHED_ON = "hapt"
NOTHING = "-"


def markdown(experiment: Experiment, sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """The whole of it: a heading, a table for each section, what its columns mean."""
    parts = [f"## {experiment.title}"]
    for section in sections:
        parts += [f"### {section.name}", table(experiment, section)]
    parts += ["\n".join(f"- {note}" for note in [*_legend(experiment, sections), *notes])]
    return "\n\n".join(parts) + "\n"


def table(experiment: Experiment, section: Section) -> str:
    """One section's rows, without heading."""
    cells = [_column(section, title, cell) for title, cell in _columns(experiment, section)]
    keys = [[key, *(row.keys[index] for row in section.rows)] for index, key in enumerate(experiment.keys)]
    return _aligned([*keys, *(column for column in cells if any(text != NOTHING for text in column[1:]))], len(keys))


def share(sample: Sample | None) -> str:
    """A score in per cent."""
    if sample is None:
        return NOTHING
    spread = "" if sample.std is None else f" ± {100 * sample.std:.1f}"
    return f"{100 * sample.mean:.1f}{spread}"


def number(value: float | None) -> str:
    """Three digits that count, never an exponent."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    size = abs(value)
    if size < 0.001:
        return "< 0.001" if value > 0 else "> -0.001"
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.3g}"


Content = Callable[[int, Row], str]


def _columns(experiment: Experiment, section: Section) -> list[tuple[str, Content]]:
    shown: list[tuple[str, Content]] = [
        ("runs", lambda _, row: str(row.runs) + (f" of {row.runs + row.missing}" if row.missing else ""))
    ]
    if experiment.name == "proxy":
        shown.append(("windows had", lambda _, row: str(row.proxy_windows or NOTHING)))
    if experiment.name != "speed":
        shown += [(f"{group} F1 (%)", _score(section, group)) for group in section.groups]
        shown.append(("lost (points)", lambda _, row: share(row.loss)))
    if experiment.name == "bytes":
        return [*shown, *_bytes_columns(section)]
    if experiment.name == "speed":
        return [*shown, *_speed_columns(section)]
    if experiment.name == "privacy":
        return [*shown, *_privacy_columns(section)]
    return [
        *shown,
        ("up (kB)", lambda _, row: _kilobytes(row.up)),
        ("down (kB)", lambda _, row: _kilobytes(row.down)),
        ("fewer bytes than FedAvg", lambda _, row: NOTHING if row.ratio is None else f"{number(row.ratio)} x"),
        ("time (s/round)", lambda _, row: number(row.round_s)),
    ]


def _kilobytes(sample: Sample | None) -> str:
    return number(None if sample is None else sample.mean / KILOBYTE)


def _score(section: Section, group: str) -> Content:
    def text(index: int, row: Row) -> str:
        plain = share(row.scores.get(group))
        return f"**{plain}**" if section.best.get(group) == index else plain

    return text


def _bytes_columns(section: Section) -> list[tuple[str, Content]]:
    target = "" if section.target is None else f" to F1 {100 * section.target:.1f} %"
    columns: list[tuple[str, Content]] = [
        ("up (kB)", lambda _, row: _kilobytes(row.up)),
        ("down (kB)", lambda _, row: _kilobytes(row.down)),
        ("proxy set, once (kB)", lambda _, row: _kilobytes(row.one_off)),
        ("fewer bytes than FedAvg", lambda _, row: NOTHING if row.ratio is None else f"{number(row.ratio)} x"),
        ("all (MB)", lambda _, row: number(row.points[-1].megabytes if row.up and row.points else None)),
        (
            "all with proxy set (MB)",
            lambda _, row: number(row.points[-1].megabytes_with_proxy if row.up and row.points else None),
        ),
        ("gain (F1 points/MB)", lambda _, row: number(_gain(row, with_proxy=False))),
        ("gain with proxy set (F1 points/MB)", lambda _, row: number(_gain(row, with_proxy=True))),
    ]
    if target:
        columns += [
            (f"MB{target}", lambda _, row: number(row.to_target and row.to_target[0])),
            (f"MB{target} with proxy set", lambda _, row: number(row.to_target and row.to_target[1])),
        ]
    return columns


def _gain(row: Row, *, with_proxy: bool) -> float | None:
    """F1 points above the start, for each megabyte of the whole federation."""
    if not row.up or not row.points or row.points[0].round != 0:
        return None
    last = row.points[-1]
    megabytes = last.megabytes_with_proxy if with_proxy else last.megabytes
    return 100 * (last.score.mean - row.points[0].score.mean) / megabytes if megabytes else None


def _speed_columns(section: Section) -> list[tuple[str, Content]]:
    yardstick = next((row.round_s for row in section.rows if row.method == PARAMETERS), None)
    parts = [part for part in WORK if any(part in row.seconds for row in section.rows)]
    columns: list[tuple[str, Content]] = [
        ("windows/s", lambda _, row: number(None if row.windows_per_s is None else row.windows_per_s.mean))
    ]
    for part in parts:
        columns.append((f"{part} (s/round)", _part(part)))
    columns += [
        ("all (s/round)", lambda _, row: number(row.round_s)),
        ("CPU, scores too (s/round)", _part("cpu")),
        ("time / FedAvg's", lambda _, row: _times(row.round_s, yardstick)),
    ]
    if _has_published(section):
        columns.append(("published code / this", lambda _, row: _times(PUBLISHED_ROUND_S, row.round_s)))
    return columns


def _privacy_columns(section: Section) -> list[tuple[str, Content]]:
    names = list(dict.fromkeys(name for row in section.rows for name in row.attacks))
    columns: list[tuple[str, Content]] = [
        (f"AUC, {way}, round {after} (%)", _attack(name))
        for name in names
        for measure, way, after in [name.split()]
        if measure == "auc"
    ]
    last = [name for name in names if name.startswith(("tpr own", "loss_auc own"))][-2:]
    titles = {"tpr": "found at 1 % false alarms (%)", "loss_auc": "AUC by loss alone (%)"}
    columns += [(titles[name.split()[0]], _attack(name)) for name in last]
    return [*columns, ("epsilon", lambda _, row: number(row.epsilon))]


def _attack(name: str) -> Content:
    return lambda _, row: share(row.attacks.get(name))


def _has_published(section: Section) -> bool:
    return section.name == PUBLISHED_ON and not section.quick


def _times(value: float | None, unit: float | None) -> str:
    return f"{number(value / unit)} x" if value and unit else NOTHING


def _part(part: str) -> Content:
    return lambda _, row: number(row.seconds[part].mean if part in row.seconds else None)


def _column(section: Section, title: str, content: Content) -> list[str]:
    return [title, *(content(index, row) for index, row in enumerate(section.rows))]


def _legend(experiment: Experiment, sections: Sequence[Section]) -> list[str]:
    lines = []
    if experiment.name != "speed":
        lines.append(
            "F1: weighted by how often each class occurs, on recordings that nobody learned from, after the last "
            "round; mean ± standard deviation over the runs. By the same linear probe on everybody's embeddings, but "
            "of methods that learn from labels by their own heads."
        )
    if any(section.best for section in sections) and experiment.name != "speed":
        lines.append("Bold: the best federated row of its column.")
    if experiment.name == "privacy":
        lines.append(
            "AUC: of telling the windows that a device learned from from others of the same person, after that round; "
            "50 by chance; mean ± standard deviation over devices and runs. own: from what the device sent; "
            "sum: from the weighted sum over all of them alone. By the attack that tells most of as many shadow "
            "devices: one that has learned on them, from all rounds until then or from the last, or one by loss alone, "
            "by how far that is below the loss of their models. Last columns: after the last round, own."
        )
        lines.append(
            "epsilon: of the device that gave away most, all its private windows exchanged for others, "
            "delta 1e-5; without noise there is none."
        )
    if any(row.loss is not None for section in sections for row in section.rows):
        lines.append(
            f"lost: {sections[0].main} F1 points below the run of the same seed in the first row of the first table, a "
            "federation that nobody spoils and that does not guard itself. Attackers are a fifth of the devices, "
            "colluders a third, unless `--attackers` says otherwise."
        )
    if any(row.up for section in sections for row in section.rows):
        lines.append(
            "up, down: as encoded for the wire, mean of a device and round, 1 kB = 1000 bytes; "
            "the proxy set, which crosses once, is not in them."
        )
    if experiment.name == "speed":
        lines.append(
            "Of each run the median of its rounds without the first; each core has a device learn. windows/s: private "
            "windows learned from, repeats counted, per second of local learning."
        )
    if experiment.name == "speed" and any(_has_published(section) for section in sections):
        lines.append(
            f"Published code: {PUBLISHED_ROUND_S:g} s for such a round of HAPT, with 2 local epochs, in float64."
        )
    if experiment.name == "bytes":
        lines.append(
            "all: of the whole federation, both ways, 1 MB = 1000 kB. gain: F1 points above random encoders. "
            f"MB to F1: until the mean has made {TARGET_SHARE:.0%} of the best federated row's way from start to end."
        )
    return lines


def _aligned(columns: Sequence[Sequence[str]], keys: int) -> str:
    """Columns, each with its title first, as a Markdown table that reads well as text too."""
    wide = [max(3, *(len(text) for text in column)) for column in columns]
    rows = list(zip(*columns, strict=True))
    rule = [("-" * width if index < keys else "-" * (width - 1) + ":") for index, width in enumerate(wide)]

    def line(texts: Sequence[str]) -> str:
        padded = (
            text.ljust(width) if index < keys else text.rjust(width)
            for index, (text, width) in enumerate(zip(texts, wide, strict=True))
        )
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])
