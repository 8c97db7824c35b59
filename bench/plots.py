"""Summaries as pictures, a PNG for each command. matplotlib is imported only here, and only to draw."""

import importlib
import io
import itertools
import logging
from collections.abc import Sequence
from typing import Any

from bench.summary import MEGABYTE, WORK, Experiment, Row, Sample, Section
from mekt import catalogue
from mekt.errors import MissingPackageError

# Okabe and Ito's colours: told apart by people who see colours differently, each with a marker of its own as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BOUND = "#7A7A7A"
# Of more groups than this, only those of one modality and of all are drawn; the table has them all.
MOST_GROUPS = 4
DPI = 150
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
    "axes.titlelocation": "left",
}


def picture(experiment: Experiment, sections: Sequence[Section]) -> bytes:
    """The experiment as a PNG.

    Raises:
        MissingPackageError: when matplotlib is not installed.
    """
    try:
        # It tells of every font it looks at.
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        matplotlib: Any = importlib.import_module("matplotlib")
        figures: Any = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            'matplotlib is not installed here; for pictures, in the folder of Mekt: pip install -e ".[bench]"',
            catalogue.PACKAGE_MISSING,
        ) from error
    draw = {"bytes": _bytes, "speed": _speed}.get(experiment.name, _lines if experiment.x_label else _dots)
    shown = [section for section in sections if any(row.runs for row in section.rows)]
    with matplotlib.rc_context(STYLE):
        figure: Any = figures.Figure(layout="constrained")
        draw(figure, experiment, shown)
        figure.suptitle(experiment.title, x=0.01, ha="left", fontsize=11)
        png = io.BytesIO()
        # Nothing in the file depends on when it was drawn.
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return png.getvalue()


def _dots(figure: Any, experiment: Experiment, sections: Sequence[Section]) -> None:
    """A panel for each section and group: every row a dot with its spread, single runs faint beside it."""
    wide = max(len(_drawn(section)) for section in sections)
    heights = [max(2.0, 0.6 + 0.28 * len(section.rows)) for section in sections]
    figure.set_size_inches(2.0 + 2.6 * wide, 0.8 + sum(heights))
    grid = figure.subplots(len(sections), wide, squeeze=False, height_ratios=heights)
    kinds: dict[str, Any] = {}
    for axes_of, section in zip(grid, sections, strict=True):
        names = [" ".join(row.keys) for row in section.rows]
        for axes, group in itertools.zip_longest(axes_of, _drawn(section)):
            if group is None:
                axes.set_axis_off()
                continue
            for index, row in enumerate(section.rows):
                if group in row.scores:
                    is_best = section.best.get(group) == index
                    kind = "best federated" if is_best else "federated" if row.federated else "bound"
                    kinds[kind] = _dot(axes, row, row.scores[group], index, is_best=is_best)
            axes.set_yticks(range(len(names)), names if axes is axes_of[0] else [""] * len(names))
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_title(f"{section.name}: {group}", fontsize=9)
            axes.set_xlabel("weighted F1 (%)")
    if len(kinds) > 1:
        figure.legend(kinds.values(), kinds.keys(), loc="outside lower center", ncols=len(kinds))


def _drawn(section: Section) -> list[str]:
    groups = list(section.groups)
    return groups if len(groups) <= MOST_GROUPS else [group for group in groups if "+" not in group]


def _dot(axes: Any, row: Row, sample: Sample, place: int, *, is_best: bool) -> Any:
    colour = COLOURS[1] if is_best else COLOURS[0] if row.federated else BOUND
    values = [100 * value for value in sample.values]
    axes.plot(values, [place] * len(values), ".", color=colour, alpha=0.35, markersize=4)
    return axes.errorbar(
        100 * sample.mean,
        place,
        xerr=100 * sample.std if sample.std is not None else None,
        fmt="o" if row.federated else "D",
        color=colour,
        markersize=5,
        capsize=2,
    )


def _lines(figure: Any, experiment: Experiment, sections: Sequence[Section]) -> None:
    """A panel for each section and group: a line with its band for every series."""
    wide = max(len(_drawn(section)) for section in sections)
    figure.set_size_inches(1.2 + 3.0 * wide, 0.8 + 2.8 * len(sections))
    grid = figure.subplots(len(sections), wide, squeeze=False)
    labels: dict[str, Any] = {}
    for axes_of, section in zip(grid, sections, strict=True):
        series = list(dict.fromkeys(row.series for row in section.rows))
        for axes, group in itertools.zip_longest(axes_of, _drawn(section)):
            if group is None:
                axes.set_axis_off()
                continue
            for index, name in enumerate(series):
                rows = [row for row in section.rows if row.series == name and row.x is not None and group in row.scores]
                rows.sort(key=lambda row: row.x or 0.0)
                labels[name] = _line(axes, [(row.x or 0.0, row.scores[group]) for row in rows], index, name)
            if experiment.x_log:
                axes.set_xscale("log")
                xs = sorted({row.x for row in section.rows if row.x is not None})
                axes.set_xticks(xs, [f"{x:g}" for x in xs])
                axes.minorticks_off()
            axes.set_title(f"{section.name}: {group}", fontsize=9)
            axes.set_xlabel(experiment.x_label)
            if axes is axes_of[0]:
                axes.set_ylabel("weighted F1 (%)")
    if len(labels) > 1:
        figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=min(4, len(labels)))


def _line(axes: Any, points: Sequence[tuple[float, Sample]], index: int, label: str) -> Any:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    xs = [x for x, _ in points]
    means = [100 * sample.mean for _, sample in points]
    [line] = axes.plot(xs, means, marker=marker, color=colour, label=label, markersize=4, linewidth=1.4)
    if any(sample.std is not None for _, sample in points):
        spreads = [100 * (sample.std or 0.0) for _, sample in points]
        low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
        high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
        axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    return line


def _bytes(figure: Any, experiment: Experiment, sections: Sequence[Section]) -> None:
    """Scores against megabytes, a row of panels for each protocol: without and with what crosses only once."""
    figure.set_size_inches(9.0, 1.2 + 3.2 * len(sections))
    grid = figure.subplots(len(sections), 2, squeeze=False, sharex="row", sharey="row")
    labels: dict[str, Any] = {}
    for axes_of, section in zip(grid, sections, strict=True):
        for axes, with_proxy in zip(axes_of, (False, True), strict=True):
            for index, row in enumerate(row for row in section.rows if row.up):
                points = [
                    (point.megabytes_with_proxy if with_proxy else point.megabytes, point.score)
                    for point in row.points
                    if point.round > 0
                ]
                name = " ".join(row.keys)
                labels[name] = _line(axes, points, index, name)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
            axes.set_xlabel(f"whole federation, both ways (MB of {MEGABYTE:,.0f} bytes)")
            axes.set_title(f"{section.name}: proxy set {'counted' if with_proxy else 'not counted'}", fontsize=9)
        axes_of[0].set_ylabel(f"{section.main}: weighted F1 (%)")
    if labels:
        figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=min(4, len(labels)))


def _speed(figure: Any, experiment: Experiment, sections: Sequence[Section]) -> None:
    """Seconds of a round, stacked by part of the work."""
    heights = [max(1.6, 0.8 + 0.3 * len(section.rows)) for section in sections]
    figure.set_size_inches(8.0, 0.6 + sum(heights))
    grid = figure.subplots(len(sections), 1, squeeze=False, height_ratios=heights)
    rows = [row for section in sections for row in section.rows]
    parts = [part for part in WORK if any(part in row.seconds for row in rows)]
    bars: dict[str, Any] = {}
    for axes, section in zip(itertools.chain(*grid), sections, strict=True):
        left = [0.0] * len(section.rows)
        for index, part in enumerate(parts):
            seconds = [row.seconds[part].mean if part in row.seconds else 0.0 for row in section.rows]
            bars[part] = axes.barh(range(len(left)), seconds, left=left, color=COLOURS[index % len(COLOURS)])
            left = [before + each for before, each in zip(left, seconds, strict=True)]
        axes.set_yticks(range(len(left)), [" ".join(row.keys) for row in section.rows])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_title(section.name, fontsize=9)
        axes.set_xlabel("time (s/round)")
    if bars:
        figure.legend(bars.values(), bars.keys(), loc="outside lower center", ncols=min(6, len(bars)))
