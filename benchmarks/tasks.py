"""What is learned: synthetic families with known structure, and real tables.

A task gives training and test rows for a seed. Synthetic targets are noise-free at the test
rows, so that an error of 0 is possible; noise is added to training targets only. The seed of
the data is 1000 + seed: none of these rows were seen when defaults were chosen.

To add a task, add a line to `synthetic_tasks` or a folder with ``--data``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skmoe import datasets

FAMILIES = ("circle", "cube", "manifold", "compositional", "real")
FIRST_DATA_SEED = 1000


class Split(NamedTuple):
    """Training and test rows, and test rows of cells without training rows."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    X_unseen: np.ndarray | None = None
    y_unseen: np.ndarray | None = None


@dataclass(frozen=True)
class Task:
    """A set of rows to learn from and to be tested on, for each seed.

    Parameters
    ----------
    name, family : str
        As tables show them.
    make : callable
        seed -> `Split`.
    spec : dict
        All that defines the task, for the fingerprint of a run.
    facts : dict
        ``D``, ``d``, ``cells`` and ``rows`` where they are known: ambient dimension, intrinsic
        dimension, number of pieces of the target, rows of a table.
    sweeps : tuple of str
        The facts along which this task is one point of a curve.
    n_splits : int or None
        Number of seeds there are; None for any number.
    """

    name: str
    family: str
    make: Callable[[int], Split]
    spec: dict[str, Any]
    facts: dict[str, int] = field(default_factory=dict)
    sweeps: tuple[str, ...] = ()
    n_splits: int | None = None


def synthetic(
    name: str,
    generator: str,
    n_train: int,
    *,
    facts: dict[str, int],
    sweeps: tuple[str, ...] = (),
    noise: float = 0.0,
    n_test: int = 2000,
    **settings: Any,
) -> Task:
    """A task of ``skmoe.datasets.make_<generator>_regression(**settings)``.

    Every seed draws another target function as well as other rows. `noise` is the standard
    deviation of the noise in units of that of the target.
    """

    def make(seed: int) -> Split:
        draw = getattr(datasets, f"make_{generator}_regression")
        random_state = FIRST_DATA_SEED + seed
        X, y = draw(n_train + n_test, random_state=random_state, **settings)
        rng = np.random.default_rng(random_state)
        y_train = y[:n_train] + noise * y.std() * rng.standard_normal(n_train)
        return Split(X[:n_train], y_train, X[n_train:], y[n_train:])

    spec = {"n_train": n_train, "n_test": n_test, "noise": noise, **settings}
    return Task(name, generator, make, spec, facts, sweeps)


def table(
    name: str,
    read: Callable[[], tuple[np.ndarray, np.ndarray]],
    test_mask: np.ndarray | None = None,
    family: str = "real",
) -> Task:
    """A task of rows that are given.

    Parameters
    ----------
    name : str
        As tables show it.
    read : callable
        () -> ``(X, y)``.
    test_mask : ndarray of shape (n, n_splits), optional
        Test rows of each split; by default a tenth of the rows, drawn with the seed.
    family : str
        As tables show it.
    """

    def make(seed: int) -> Split:
        X, y = read()
        if test_mask is not None:
            test = test_mask[:, seed]
        else:
            order = np.random.default_rng(FIRST_DATA_SEED + seed).permutation(len(y))
            test = np.isin(np.arange(len(y)), order[: -(-len(y) // 10)])
        X_train, X_test = _impute(X[~test], X[test])
        return Split(X_train, y[~test], X_test, y[test])

    n_splits = None if test_mask is None else test_mask.shape[1]
    splits = "a tenth at random" if test_mask is None else f"{n_splits} fixed"
    facts = {} if test_mask is None else {"rows": len(test_mask)}
    return Task(name, family, make, {"splits": splits}, facts, n_splits=n_splits)


def _impute(X_train: np.ndarray, X_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Missing features become the median of the training rows, for every contestant."""
    if not (np.isnan(X_train).any() or np.isnan(X_test).any()):
        return X_train, X_test
    medians = np.nanmedian(X_train, axis=0)
    return tuple(np.where(np.isnan(X), medians, X) for X in (X_train, X_test))


def packaged(name: str) -> Task:
    """A real table that is part of skmoe."""
    return table(name, lambda: getattr(datasets, f"load_{name}")(return_X_y=True))


def folder(path: str | Path) -> list[Task]:
    """A task for each ``.npz`` file of a folder, with ``X``, ``y`` and ``test_mask``."""
    files = sorted(Path(path).glob("*.npz"))
    if not files:
        raise FileNotFoundError(f"--data needs a folder with .npz files. Found none in {path}.")
    return [_npz(file) for file in files]


def _npz(file: Path) -> Task:
    with np.load(file) as arrays:
        missing = {"X", "y", "test_mask"} - set(arrays.files)
        if missing:
            raise ValueError(f"{file} needs arrays X, y and test_mask. It lacks {missing}.")
        mask = arrays["test_mask"].astype(bool)
        if mask.ndim != 2 or mask.shape[0] != len(arrays["y"]):
            raise ValueError(
                f"test_mask of {file} needs the shape ({len(arrays['y'])}, n_splits). "
                f"Got {mask.shape}."
            )

    def read() -> tuple[np.ndarray, np.ndarray]:
        with np.load(file) as arrays:
            return arrays["X"].astype(np.float64), arrays["y"].astype(np.float64).ravel()

    return table(file.stem, read, mask)


def user_table(path: str | Path, target: str | None, parquet: bool = False) -> Task:
    """A task from a CSV or Parquet file of one's own.

    The target is the column `target`, by default the last one. Rows without a target are
    left out, text columns of up to 20 values become indicators, others are refused.
    """
    import pandas as pd

    path = Path(path)
    frame = pd.read_parquet(path) if parquet else pd.read_csv(path)
    target = frame.columns[-1] if target is None else target
    if target not in frame.columns:
        raise ValueError(f"--target must be one of {list(frame.columns)}. Got {target!r}.")
    frame = frame.dropna(subset=[target])
    y = pd.to_numeric(frame.pop(target)).to_numpy(np.float64)
    words = [c for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c])]
    many = [c for c in words if frame[c].nunique() > 20]
    if many:
        raise ValueError(
            f"text columns may have at most 20 different values. Drop or recode {many}."
        )
    X = pd.get_dummies(frame, columns=words, dtype=float).to_numpy(np.float64)
    task = table(path.stem, lambda: (X, y), family="user")
    task.spec.update(target=str(target), shape=list(X.shape))
    return task


def synthetic_tasks(level: str) -> list[Task]:
    """The synthetic tasks of a level of effort: "smoke", "demo" or "full"."""
    if level == "full":
        return [*_circles(), *_cubes(), *_manifolds(), *_compositions()]
    n_few, n_more, n_test = (120, 120, 200) if level == "smoke" else (800, 2500, 1000)
    few, more = ({"n_train": n, "n_test": n_test} for n in (n_few, n_more))
    # Jumps and blocks take some rows to be told; what is smooth does not.
    return [
        _circle(16, **few),
        _cube(2, **few),
        _manifold(8, 2, **more),
        _composition(2, 4, D=8, **more),
    ]


def _circle(D: int, n_train: int = 2000, **more: Any) -> Task:
    facts = {"D": D, "d": 1, "cells": 1}
    # Rotated: zeros in the other coordinates, as in the paper, would hide D from everyone.
    return synthetic(
        f"circle D={D}",
        "circle",
        n_train,
        facts=facts,
        sweeps=("D",),
        n_features=D,
        embedding="rotation",
        **more,
    )


def _circles() -> list[Task]:
    return [_circle(D) for D in (16, 32, 64, 128)]


def _cube(n_blocks: int, n_train: int = 4000, **more: Any) -> Task:
    n_regions = 3
    cells = n_regions**n_blocks
    facts = {"D": n_blocks, "d": n_blocks, "cells": cells}
    return synthetic(
        f"cube L={n_blocks} E={n_regions}",
        "cube",
        n_train,
        facts=facts,
        sweeps=("cube",),
        n_blocks=n_blocks,
        n_regions=n_regions,
        **more,
    )


def _cubes() -> list[Task]:
    return [_cube(n_blocks) for n_blocks in (1, 2, 4, 6)]


def _manifold(
    D: int, d: int, n_train: int = 4000, sweeps: tuple[str, ...] = (), **more: Any
) -> Task:
    noise = more.get("noise", 0.0)
    facts = {"D": D, "d": d, "cells": 4}
    return synthetic(
        f"torus d={d} D={D} n={n_train}" + (f" noise={noise}" if noise else ""),
        "manifold",
        n_train,
        facts=facts,
        sweeps=sweeps,
        manifold="torus",
        intrinsic_dim=d,
        n_features=D,
        n_pieces=4,
        **more,
    )


def _manifolds() -> list[Task]:
    """Curves over D at d = 2, over d at D = 32 and over n, with one point in common."""
    return [
        *(_manifold(D, 2, sweeps=("D",)) for D in (8, 128)),
        _manifold(32, 2, sweeps=("D", "d", "n")),
        *(_manifold(32, d, sweeps=("d",)) for d in (1, 4, 6)),
        *(_manifold(32, 2, n_train=n, sweeps=("n",)) for n in (1000, 16_000)),
        _manifold(32, 2, noise=0.1),
    ]


def _composition(
    n_blocks: int,
    n_regions: int,
    n_train: int = 8000,
    D: int = 16,
    sweeps: tuple[str, ...] = (),
    **more: Any,
) -> Task:
    noise = more.get("noise", 0.0)
    cells = n_regions**n_blocks
    facts = {"D": D, "d": 2 * n_blocks, "cells": cells}
    return synthetic(
        f"composition L={n_blocks} E={n_regions}" + (f" noise={noise}" if noise else ""),
        "compositional",
        n_train,
        facts=facts,
        sweeps=sweeps,
        n_blocks=n_blocks,
        n_regions=n_regions,
        n_features=D,
        **more,
    )


def _compositions() -> list[Task]:
    """Curves over the regions E at L = 3 blocks and over L at E = 4, one point in common."""
    return [
        *(_composition(3, n_regions, sweeps=("regions",)) for n_regions in (1, 2, 8)),
        _composition(3, 4, sweeps=("regions", "blocks")),
        *(_composition(n_blocks, 4, sweeps=("blocks",)) for n_blocks in (1, 2, 4, 5)),
        _composition(3, 4, noise=0.1),
    ]


def tasks_of(level: str, families: tuple[str, ...], data: str | Path | None) -> list[Task]:
    """The tasks of a level in these families; `data` adds the tables of a folder."""
    chosen = [task for task in synthetic_tasks(level) if task.family in families]
    if "real" in families:
        real = [packaged("concrete")] + ([packaged("airfoil")] if level == "full" else [])
        given = folder(data) if data else []
        # Fixed splits win over random ones of the same table.
        names = {task.name for task in given}
        chosen += [task for task in real if task.name not in names] + given
    return chosen
