"""matplotlib, imported when something is drawn."""

from typing import Any

from skmoe._optional import import_optional


def pyplot() -> Any:
    """``matplotlib.pyplot``, or an error that says what to install."""
    return import_optional("matplotlib.pyplot", "Plots need matplotlib", "plot")


def axes(ax=None) -> Any:
    """Where to draw: the given axes, or those of a new figure."""
    return pyplot().subplots()[1] if ax is None else ax
