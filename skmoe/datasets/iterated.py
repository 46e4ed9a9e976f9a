"""Targets that are composed step by step, and held-out combinations of their pieces.

Zubić et al., "Limits of deep learning: sequence modeling through the lens of complexity theory"
(2024, arXiv:2405.16674), ask of models to compose functions and to multiply numbers digit by
digit, both of which take depth. Whether a model has learned the steps, and not their result,
shows on combinations that it has not seen.
"""

from typing import Any

import numpy as np

from skmoe.datasets._cells import draw_cells, draw_rows
from skmoe.datasets._generation import Seed, check_integer, deliver, streams_of

# Largest bend of a piece, in units in which 1 makes it stand still somewhere.
LARGEST_BEND = 0.8
# Integers up to here are exact in float64.
LARGEST_PRODUCT = 2**53


class Step:
    """A map of [0, 1) onto itself in E pieces, each of which covers all of [0, 1).

    With ``t = E z - i`` in piece i, ``f(z) = t + a_i sin(2 pi t) / (2 pi)``, or one minus that.

    Parameters
    ----------
    n_regions : int
        Number of pieces E, of equal width.
    generator : numpy.random.RandomState
        Source of bends a and directions.
    """

    def __init__(self, n_regions: int, generator: np.random.RandomState) -> None:
        self.n_regions = n_regions
        self.bends = generator.uniform(-LARGEST_BEND, LARGEST_BEND, n_regions)
        self.falls = generator.uniform(size=n_regions) < 0.5

    def __call__(self, z: np.ndarray) -> np.ndarray:
        region = self.regions(z)
        t = self.n_regions * z - region
        rising = t + self.bends[region] * np.sin(2 * np.pi * t) / (2 * np.pi)
        return np.where(self.falls[region], 1 - rising, rising)

    def regions(self, z: np.ndarray) -> np.ndarray:
        """The piece that each z lies in."""
        return np.clip(np.floor(self.n_regions * z), 0, self.n_regions - 1).astype(np.int64)


def make_iterated_regression(
    n_samples: int,
    *,
    n_steps: int = 3,
    n_regions: int = 4,
    n_features: int = 1,
    noise: float = 0.0,
    holdout_cells: float = 0.0,
    return_X_y: bool = True,
    random_state: Seed = None,
    task_random_state: Seed = None,
) -> Any:
    """L functions of E pieces, one after the other.

    The target is ``y = f_L(... f_2(f_1(x_1)))``. Each ``f_l`` maps each of its pieces onto the
    whole of [0, 1), so that y has ``E^L`` pieces in x though L E functions make it. A deep
    model can reuse them; a shallow one has to learn all of the pieces.

    Parameters
    ----------
    n_samples : int
        Number of rows.
    n_steps : int, default=3
        Number of functions L.
    n_regions : int, default=4
        Number of pieces E of each.
    n_features : int, default=1
        Number of features D, uniform in [0, 1). Only the first matters.
    noise : float, default=0.0
        Standard deviation of the normal noise added to y, in units of y, which is in [0, 1).
    holdout_cells : float in [0, 1), default=0.0
        Share of the E^L cells (combinations of pieces) that ``(X, y)`` has no rows of; every
        piece of every step still has some. They are in the `Bunch`.
    return_X_y : bool, default=True
        False for a `Bunch`.
    random_state : int, RandomState or None, default=None
        Decides the task and the rows.
    task_random_state : int, RandomState or None, default=None
        Decides the task alone, held-out cells included.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
        Instead, with ``return_X_y=False``, one `Bunch` of n rows with

        - data, target: X and y
        - latent: ndarray of shape (n, n_steps + 1), x_1 and what each step makes of it
        - regions: int ndarray of shape (n, n_steps), piece of each step
        - holdout: bool ndarray of shape (n,), which rows are in held-out cells
        - holdout_cells: int ndarray of shape (n_cells, n_steps)
        - steps: list of the functions f_l, each with a method `regions`
        - noise_free_target: ndarray of shape (n,)
        - DESCR: str

    Raises
    ------
    ValueError
        If a number is out of range, or too many cells are held out.

    References
    ----------
    Zubić et al. (2024), arXiv 2405.16674 (function composition).

    Examples
    --------
    >>> from skmoe.datasets import make_iterated_regression
    >>> data = make_iterated_regression(500, n_steps=2, return_X_y=False, random_state=0)
    >>> first, second = data.steps
    >>> bool((second(first(data.data[:, 0])) == data.target).all())
    True
    """
    for name, value in (
        ("n_samples", n_samples),
        ("n_steps", n_steps),
        ("n_regions", n_regions),
        ("n_features", n_features),
    ):
        check_integer(name, value, 1)
    streams = streams_of(random_state, task_random_state)
    held_cells = draw_cells(holdout_cells, n_steps, n_regions, streams.holdout)
    steps = [Step(n_regions, streams.target) for _ in range(n_steps)]

    def states(X: np.ndarray) -> np.ndarray:
        found = [X[:, 0]]
        for step in steps:
            found.append(step(found[-1]))
        return np.column_stack(found)

    def regions(X: np.ndarray) -> np.ndarray:
        return np.column_stack(
            [step.regions(z) for step, z in zip(steps, states(X).T, strict=False)]
        )

    X, holdout = draw_rows(
        n_samples,
        lambda n: streams.rows.uniform(size=(n, n_features)),
        regions,
        held_cells,
        n_regions,
    )
    latent = states(X)
    return deliver(
        X,
        latent[:, -1],
        noise,
        streams.noise,
        return_X_y,
        holdout=holdout,
        holdout_cells=held_cells,
        latent=latent,
        regions=regions(X),
        steps=steps,
        DESCR=f"{n_steps} functions of {n_regions} pieces each, one after the other.",
    )


def make_multiplication_regression(
    n_samples: int,
    *,
    n_digits: int = 2,
    base: int = 10,
    noise: float = 0.0,
    holdout_cells: float = 0.0,
    return_X_y: bool = True,
    random_state: Seed = None,
    task_random_state: Seed = None,
) -> Any:
    """The product of two numbers of which the digits are given.

    ``y = a b / (base^n - 1)^2`` with features the n digits of a, then those of b, the largest
    places first.

    Parameters
    ----------
    n_samples : int
        Number of rows.
    n_digits : int, default=2
        Digits n of each number.
    base : int, default=10
        Of the digits, at least 2; ``base^(2 n)`` is at most ``2^53``.
    noise : float, default=0.0
        Standard deviation of the normal noise added to y, in units of y, which is in [0, 1].
    holdout_cells : float in [0, 1), default=0.0
        Share of the pairs of leading digits that ``(X, y)`` has no rows of; every leading digit
        of either number still has some. They are in the `Bunch`.
    return_X_y : bool, default=True
        False for a `Bunch`.
    random_state : int, RandomState or None, default=None
        Decides held-out cells and rows.
    task_random_state : int, RandomState or None, default=None
        Decides the held-out cells alone.

    Returns
    -------
    X : ndarray of shape (n_samples, 2 * n_digits)
    y : ndarray of shape (n_samples,)
        Instead, with ``return_X_y=False``, one `Bunch` of n rows with

        - data, target: X and y
        - latent: ndarray of shape (n, 2), the numbers a and b
        - regions: int ndarray of shape (n, 2), their leading digits
        - holdout: bool ndarray of shape (n,), which rows are in held-out cells
        - holdout_cells: int ndarray of shape (n_cells, 2)
        - places: ndarray of shape (n_digits,), what a digit of each place is worth
        - noise_free_target: ndarray of shape (n,)
        - DESCR: str

    Raises
    ------
    ValueError
        If a number is out of range, or too many cells are held out.

    References
    ----------
    Zubić et al. (2024), arXiv 2405.16674 (multiplication of numbers).

    Examples
    --------
    >>> from skmoe.datasets import make_multiplication_regression
    >>> data = make_multiplication_regression(500, return_X_y=False, random_state=0)
    >>> a, b = (data.data[:, half] @ data.places for half in (slice(0, 2), slice(2, 4)))
    >>> bool((a * b / 99**2 == data.target).all())
    True
    """
    check_integer("n_samples", n_samples, 1)
    check_integer("n_digits", n_digits, 1)
    check_integer("base", base, 2)
    if base ** (2 * n_digits) > LARGEST_PRODUCT:
        raise ValueError(
            "base ** (2 * n_digits) must be at most 2 ** 53, so that products are exact. "
            f"Got base={base} and n_digits={n_digits}."
        )
    streams = streams_of(random_state, task_random_state)
    held_cells = draw_cells(holdout_cells, 2, base, streams.holdout)
    X, holdout = draw_rows(
        n_samples,
        lambda n: streams.rows.randint(base, size=(n, 2 * n_digits)).astype(float),
        lambda X: X[:, [0, n_digits]].astype(np.int64),
        held_cells,
        base,
    )
    places = float(base) ** np.arange(n_digits)[::-1]
    latent = np.column_stack([X[:, :n_digits] @ places, X[:, n_digits:] @ places])
    return deliver(
        X,
        latent[:, 0] * latent[:, 1] / (base**n_digits - 1) ** 2,
        noise,
        streams.noise,
        return_X_y,
        holdout=holdout,
        holdout_cells=held_cells,
        latent=latent,
        regions=X[:, [0, n_digits]].astype(np.int64),
        places=places,
        DESCR=f"Products of two numbers of {n_digits} digits in base {base}.",
    )
