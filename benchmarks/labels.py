"""Direct labels that do not cover each other, for plots with more names than colours."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

SIZE = 7.5  # points


def label_points(
    ax: Axes, points: np.ndarray, names: Sequence[str], colors: Sequence[str]
) -> None:
    """Write each name near its point, where no other label and no point is.

    Call it when scales and limits are final.

    Parameters
    ----------
    ax : Axes
    points : ndarray of shape (n, 2)
        In data coordinates.
    names, colors : sequences of n str
    """
    figure = ax.get_figure()
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    pixels = ax.transData.transform(points)
    scale = figure.dpi / 72
    half = 5 * scale  # of a marker
    taken = [Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half) for x, y in pixels]
    frame = ax.get_window_extent(renderer)
    for point, (x, y), name, color in zip(points, pixels, names, colors, strict=True):
        width, height = _size(figure, renderer, name)
        offset, box = _free_place((x, y), width, height, taken, frame, scale)
        taken.append(box)
        _annotate(ax, point, name, color, offset, scale)


def _size(figure: Figure, renderer, name: str) -> tuple[float, float]:
    """Width and height of a label in pixels."""
    text = figure.text(0, 0, name, fontsize=SIZE)
    box = text.get_window_extent(renderer)
    text.remove()
    return box.width, box.height


def _free_place(at, width, height, taken, frame, scale):
    """The offset in pixels of the nearest box that is free, and the box."""
    best, least = None, np.inf
    for distance in (7, 14, 22, 32, 44, 58, 74):
        for angle in np.deg2rad([0, 180, 90, 270, 35, 325, 145, 215]):
            dx, dy = distance * scale * np.cos(angle), distance * scale * np.sin(angle)
            left = at[0] + dx - (width if np.cos(angle) < -0.1 else 0)
            left -= width / 2 if abs(np.cos(angle)) <= 0.1 else 0
            box = Bbox.from_bounds(left, at[1] + dy - height / 2, width, height)
            covered = sum(_overlap(box, other) for other in taken)
            covered += box.width * box.height - _overlap(box, frame)
            if covered + distance * 1e-3 < least:
                best, least = ((dx, dy), box), covered + distance * 1e-3
    return best


def _overlap(a: Bbox, b: Bbox) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0.0) * max(height, 0.0)


def _annotate(ax: Axes, point, name: str, color: str, offset, scale: float) -> None:
    """The label, with a thin line to its point if it is far away."""
    far = np.hypot(*offset) > 16 * scale
    cosine = offset[0] / np.hypot(*offset)
    side = "center" if abs(cosine) <= 0.1 else ("left" if cosine > 0 else "right")
    ax.annotate(
        name,
        point,
        xytext=(offset[0] / scale, offset[1] / scale),
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=SIZE,
        color=_darker(color),
        arrowprops={"arrowstyle": "-", "color": color, "lw": 0.6} if far else None,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        zorder=5,
    )


def label_ends(ax: Axes, ends: np.ndarray, names: Sequence[str], colors: Sequence[str]) -> None:
    """Write each name to the right of the panel, at the height of its curve's end.

    Names that would cover each other are moved apart, and joined to their ends by a line.
    """
    figure = ax.get_figure()
    figure.draw_without_rendering()
    low, high = ax.get_ylim()
    heights = np.log(ends[:, 1] / low) / np.log(high / low)
    panel = ax.get_window_extent().height
    gap = 1.2 * SIZE * figure.dpi / 72 / panel
    places = _spread(heights, gap)
    for end, place, name, color in zip(ends, places, names, colors, strict=True):
        ax.annotate(
            name,
            end,
            xytext=(1.08, place),
            textcoords="axes fraction",
            va="center",
            fontsize=SIZE,
            color=_darker(color),
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.6, "shrinkA": 1},
            annotation_clip=False,
        )


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """The nearest heights in the same order that are at least `gap` apart.

    Subtracting ``i * gap`` turns "at least gap apart" into "increasing", so that isotonic
    regression solves it.
    """
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(heights)
    steps = gap * np.arange(len(heights))
    places = np.empty(len(heights))
    places[order] = isotonic_regression(heights[order] - steps) + steps
    return places


def _darker(color: str) -> tuple[float, ...]:
    """A shade that can be read as text on white."""
    from matplotlib.colors import to_rgb

    return tuple(0.75 * channel for channel in to_rgb(color))
