"""Recall against speed as an SVG, made here: a drawing of this size needs no library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from iqdb_core.recall import RecallReport

_WIDTH, _HEIGHT = 760, 500
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 28, 66, 58
_LINE_HEIGHT = 15
_CHAR_WIDTH = 6.7
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_MAX_TICKS = 7
# Places of a label beside its point, the best first. The curve mostly falls to the right.
_OFFSETS = (
    (6, -8, "start"),
    (-8, 17, "end"),
    (-10, 4, "end"),
    (10, 4, "start"),
    (-6, -9, "end"),
    (8, 17, "start"),
    (-8, 32, "end"),
    (-8, -24, "end"),
)

# Whoever shows the picture decides between light and dark; a program that knows no media queries shows
# the light one.
_STYLE = """
svg { color-scheme: light dark; font: 12px system-ui, "Helvetica Neue", Arial, sans-serif; }
.paper { fill: #ffffff; } .text { fill: #24292f; } .soft { fill: #57606a; }
.title { font-size: 16px; font-weight: 600; }
.grid { stroke: #d8dee4; } .axis { stroke: #57606a; }
.curve { stroke: #0969da; fill: none; stroke-width: 2; } .point { fill: #0969da; }
.chosen { fill: none; stroke: #1a7f37; stroke-width: 2; } .exact { fill: #bc4c00; }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117; } .text { fill: #e6edf3; } .soft { fill: #9198a1; }
.grid { stroke: #30363d; } .axis { stroke: #9198a1; }
.curve { stroke: #58a6ff; } .point { fill: #58a6ff; }
.chosen { stroke: #3fb950; } .exact { fill: #f0883e; }
}
"""


class _Label(NamedTuple):
    text: str
    x: float
    y: float
    css: str


class _Axes:
    """Where a recall and a speed are in the picture."""

    def __init__(self, recalls: Sequence[float], speeds: Sequence[float]) -> None:
        lowest = min([*recalls, 0.99])
        self.step = next(step for step in _STEPS if (1 - lowest) / step <= _MAX_TICKS)
        self.first = math.floor(round(lowest / self.step, 6)) * self.step
        # A decade is the least that a logarithmic axis shows well.
        self.low = math.floor(3 * math.log10(min(speeds))) / 3
        self.high = max(math.ceil(3 * math.log10(max(speeds))) / 3, self.low + 1)

    def x(self, recall: float) -> float:
        return _LEFT + (recall - self.first) / (1 - self.first) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, speed: float) -> float:
        share = (math.log10(speed) - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def recall_ticks(self) -> Iterator[float]:
        for number in range(round((1 - self.first) / self.step) + 1):
            yield self.first + number * self.step

    def speed_ticks(self) -> Iterator[float]:
        for decade in range(math.floor(self.low), math.ceil(self.high) + 1):
            for digit in (1, 2, 5):
                if self.low - 1e-9 <= decade + math.log10(digit) <= self.high + 1e-9:
                    yield digit * 10.0**decade


def recall_svg(report: RecallReport, name: str) -> str:
    """Return the picture: recall on x, queries per second on y (logarithmic), a labelled point a setting.

    Args:
        report: what was measured; with no points only exact search is shown.
        name: the file's name, for the title.
    """
    points = [point for point in report.points if point.queries_per_second > 0]
    exact = max(report.exact_queries_per_second, 1e-3)
    axes = _Axes(
        [point.recall_mean for point in points], [exact, *(point.queries_per_second for point in points)]
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{_escaped(f'Recall and speed of {name}')}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        _text("text title", _LEFT, 28, name),
        _text("soft", _LEFT, 48, _subtitle(report)),
        *_grid(axes, report.k),
    ]
    places = [(axes.x(point.recall_mean), axes.y(point.queries_per_second)) for point in points]
    if places:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="curve" points="{line}"/>')
    labels = [_Label("exact", axes.x(1.0), axes.y(exact), "soft")]
    for point, (x, y) in zip(points, places, strict=True):
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        text = f"{report.parameter} {point.value}" + (" (default)" if point.value == report.default else "")
        if point.value == report.reached:
            parts.append(f'<circle class="chosen" cx="{x:.1f}" cy="{y:.1f}" r="7"/>')
        # Those that matter most come first and are never left out for another's sake.
        first = point.value in {report.reached, report.default}
        labels.insert(0 if first else len(labels), _Label(text, x, y, "text"))
    x, y = axes.x(1.0), axes.y(exact)
    parts.append(f'<path class="exact" d="M{x:.1f},{y - 5:.1f} l5,5 l-5,5 l-5,-5 z"/>')
    parts += _placed(labels, places)
    return "\n".join([*parts, "</svg>", ""])


def _subtitle(report: RecallReport) -> str:
    queries = "stored records as queries" if report.sampled else "queries"
    parts = [f"index {report.index}", f"k {report.k}", f"{report.n_queries:,} {queries}"]
    if report.filter is not None:
        parts.append(f"filter {report.filter}")
    text = ", ".join(parts)
    return text if len(text) <= 100 else text[:99] + "…"


def _grid(axes: _Axes, k: int) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for recall in axes.recall_ticks():
        x = axes.x(recall)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>'
        yield _text("soft", x, bottom + 18, f"{recall:.4f}".rstrip("0").ljust(4, "0"), "middle")
    for speed in axes.speed_ticks():
        y = axes.y(speed)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield _text("soft", _LEFT - 8, y + 4, f"{speed:,.0f}" if speed >= 1 else f"{speed:g}", "end")
    yield f'<path class="axis" fill="none" d="M{_LEFT},{_TOP} V{bottom} H{right}"/>'
    yield _text("text", (_LEFT + right) / 2, _HEIGHT - 16, f"recall@{k}, mean", "middle")
    middle = (_TOP + bottom) / 2
    yield (
        f'<text class="text" text-anchor="middle" transform="translate(18 {middle:.1f}) rotate(-90)">'
        "queries/s</text>"
    )


def _placed(labels: Sequence[_Label], places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Yield the labels beside their points, without those for which there is no room."""
    # A label must not cover a point either.
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for label in labels:
        width = _CHAR_WIDTH * len(label.text)
        for dx, dy, anchor in _OFFSETS:
            x, y = label.x + dx, label.y + dy
            left = x if anchor == "start" else x - width
            box = (left, y - _LINE_HEIGHT + 4, left + width, y + 4)
            inside = box[0] >= _LEFT and box[2] <= _WIDTH - 4 and box[3] <= _HEIGHT - _BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                yield _text(label.css, x, y, label.text, anchor)
                break


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _text(css: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_escaped(text)}</text>'


def _escaped(text: str) -> str:
    # XML has no place for control characters, nor for the halves of characters that odd file names have.
    kept = "".join(char if char.isprintable() and not "\ud800" <= char <= "\udfff" else "�" for char in text)
    return escape(kept)
