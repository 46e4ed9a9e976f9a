"""Checks of the settings of parts: the rule, then the value."""

import math
from numbers import Integral, Real
from typing import Any


def check_integer(name: str, value: Any, smallest: int = 1) -> int:
    """An int of at least `smallest`; True is none."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < smallest:
        raise ValueError(f"{name} must be an int of at least {smallest}. Got {value!r}.")
    return int(value)


def check_number(
    name: str,
    value: Any,
    *,
    smallest: float = 0.0,
    below: float = math.inf,
    largest: float = math.inf,
    open_: bool = False,
) -> float:
    """A finite number from `smallest` (left out if `open_`) to `largest`, or below `below`."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < smallest or value >= below or (open_ and value == smallest):
        above = f"above {smallest:g}" if open_ else f"of at least {smallest:g}"
        limit = "" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{name} must be a number {above}{limit}. Got {value!r}.")
    if value > largest:
        raise ValueError(f"{name} must be at most {largest:g}. Got {value!r}.")
    return float(value)
