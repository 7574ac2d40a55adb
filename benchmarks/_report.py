"""Figures to text and picture: medians, Markdown tables, a line chart in SVG.  Called by every benchmark here."""

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#b8860b", "#6a4c93", "#444444")


def median(values: Sequence[float]) -> float | None:
    """Median, or None of nothing."""
    return statistics.median(values) if values else None


def number(value: float | None) -> str:
    """The figure with grouped thousands and only its significant digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Median of the rounds' ratios: both were measured within seconds, so a machine that drifts cancels out."""
    return median([a / b for a, b in zip(ours, theirs, strict=True)]) if ours and theirs else None


def against(value: float | None, target: float | None) -> str:
    """A ratio with its verdict: `0.23 ok`, `0.31 OVER`; without a target only the ratio."""
    if value is None:
        return "-"
    if target is None:
        return f"{value:.2f}"
    return f"{value:.2f} {'ok' if value <= target else 'OVER'}"


def cpu_and_wall(entries: Sequence[Mapping[str, float]]) -> str:
    """Medians of the rounds' times, in seconds: "CPU (wall)"."""
    cpu, wall = (median([entry[clock] for entry in entries]) for clock in ("cpu", "wall"))
    return "-" if cpu is None or wall is None else f"{cpu:.3f} ({wall:.3f})"


def ratios(
    clock: str,
    ours: Sequence[Mapping[str, float]],
    others: Sequence[Sequence[Mapping[str, float]]],
    target: float | None,
) -> list[str]:
    """The first side's seconds on `clock` ("cpu" or "wall") divided by each other side's, with the verdict."""
    mine = [entry[clock] for entry in ours]
    return [against(ratio(mine, [entry[clock] for entry in entries]), target) for entries in others]


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, numbers to the right."""
    widths = [max(len(row[i]) for row in (header, *body)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join([line(header), f"|{rule}|", *(line(row) for row in body)])


def chart(panels: Mapping[str, Mapping[str, Sequence[Point]]], x_label: str, y_label: str) -> str:
    """An SVG document: one panel a title, in it one line a name; both axes logarithmic."""
    width, height, gap = 430, 300, 40
    columns = 2
    rows = math.ceil(len(panels) / columns)
    total_w, total_h = columns * (width + gap) + gap, rows * (height + gap) + gap
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_w} {total_h}" '
        f'width="{total_w}" height="{total_h}" font-family="sans-serif" font-size="12">',
        f'<rect width="{total_w}" height="{total_h}" fill="white"/>',
    ]
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    for i, (title, lines) in enumerate(panels.items()):
        left, top = gap + i % columns * (width + gap), gap + i // columns * (height + gap)
        parts.append(f'<g transform="translate({left},{top})">')
        parts += _panel(title, lines, colours, (width, height), (x_label, y_label))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    colours: Mapping[str, str],
    size: tuple[int, int],
    labels: tuple[str, str],
) -> list[str]:
    left, top, right, bottom = 60, 20, size[0] - 10, size[1] - 40
    points = [point for line in lines.values() for point in line]
    if not points:
        return [f'<text x="0" y="10">{escape(title)}: nothing measured</text>']
    x_low, x_high = _decades([x for x, _ in points])
    y_low, y_high = _decades([y for _, y in points])

    def at_x(x: float) -> float:
        return left + (math.log10(x) - x_low) / (x_high - x_low) * (right - left)

    def at_y(y: float) -> float:
        return bottom - (math.log10(y) - y_low) / (y_high - y_low) * (bottom - top)

    out = [f'<text x="{left}" y="10" font-weight="bold">{escape(title)}</text>']
    for exponent in range(x_low, x_high + 1):
        x = at_x(10**exponent)
        out.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{10**exponent:,}</text>')
    for exponent in range(y_low, y_high + 1):
        y = at_y(10**exponent)
        out.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{10**exponent:,}</text>')
    out.append(f'<text x="{(left + right) / 2}" y="{bottom + 32}" text-anchor="middle">{escape(labels[0])}</text>')
    out.append(f'<text x="{left}" y="{top - 2}" font-size="10">{escape(labels[1])}</text>')
    for i, (name, line) in enumerate(lines.items()):
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        out += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colours[name]}"/>' for x, y in line]
        y = top + 14 + 15 * i
        out.append(f'<text x="{right - 4}" y="{y}" text-anchor="end" fill="{colours[name]}">{escape(name)}</text>')
    return out


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten that enclose the values, at least one decade apart."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)
