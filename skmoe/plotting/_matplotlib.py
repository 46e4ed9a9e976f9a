"""matplotlib, imported when something is drawn; axes, and colours for all kinds of eyes."""

from typing import Any

from skmoe._optional import import_optional

# Of Okabe and Ito (2008), made for all kinds of colour vision, and a grey; black is for sums.
SAFE_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#999999",
)
GREY = "0.5"
# A legend beside the axes.
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}


def pyplot() -> Any:
    """``matplotlib.pyplot``, or an error that says what to install."""
    return import_optional("matplotlib.pyplot", "Plots need matplotlib", "plot")


def axes(ax: Any = None, **figure: Any) -> Any:
    """Where to draw: the given axes, or those of a new figure with these settings.

    The new figure has room for its labels, and for a legend beside the axes.
    """
    return pyplot().subplots(layout="constrained", **figure)[1] if ax is None else ax


def colours(number: int) -> list[Any]:
    """So many colours; from nine on, they go from dark to light in order."""
    if number <= len(SAFE_COLOURS):
        return list(SAFE_COLOURS[:number])
    return list(pyplot().get_cmap("viridis", number)(range(number)))
