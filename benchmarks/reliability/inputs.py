"""Rows and parameters that are wrong or odd: refused with a clear message, or handled.

Each case of the list is one fit. A case that has to be refused must raise `ValueError` or
`TypeError` with a message that matches; one that has to work must predict finite values that
correlate with the targets.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.reliability.figure import Figure
from skmoe import DeepMoERegressor, MoERegressor, part

SMALL: dict[str, Any] = {"n_experts": 3, "hidden_dim": 8, "max_epochs": 30}
SMALL["learning_rate"] = 0.02
KINDS = (MoERegressor, DeepMoERegressor)
# A score may differ by so much between units, or with an outlier in another feature.
SAME_SCORE = 0.01
USEFUL = 0.5


class Case(NamedTuple):
    """A fit, and what has to become of it."""

    name: str
    change: Callable[..., dict[str, Any]]
    message: str | None = None
    """What the error says; None if the fit has to work."""


def problem(n_rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Three features, of which two matter."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 3))
    return X, np.sin(X[:, 0]) + X[:, 1]


def _frame(X, **more) -> pd.DataFrame:
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(**more)


def _put(values, value):
    values = np.array(values, dtype=float)
    values.flat[7] = value
    return values


def _rows(**rows):
    """A case that changes the rows of a fit."""
    return lambda X, y: {name: make(X, y) for name, make in rows.items()}


def _params(**params):
    return lambda X, y: {"params": params}


def _refused() -> Iterator[Case]:
    for name, value, says in (
        ("NaN", np.nan, "NaN"),
        ("inf", np.inf, "infinity"),
        ("-inf", -np.inf, "infinity"),
    ):
        cure = r"[\s\S]*SimpleImputer" if name == "NaN" else ""
        yield Case(
            f"X has {name}", _rows(X=lambda X, y, v=value: _put(X, v)), f"X.*{says}{cure}"
        )
        yield Case(f"y has {name}", _rows(y=lambda X, y, v=value: _put(y, v)), f"y.*{says}")
        weight = _rows(w=lambda X, y, v=value: _put(np.ones(len(y)), v))
        yield Case(f"weights have {name}", weight, f"weight.*{says}")
        judge = _rows(X_val=lambda X, y, v=value: _put(X, v), y_val=lambda X, y: y)
        yield Case(f"X_val has {name}", judge, f"X.*{says}")
    yield Case("weights are zero", _rows(w=lambda X, y: 0 * y), "non-zero")
    yield Case("a weight is negative", _rows(w=lambda X, y: _put(np.ones(80), -1)), "egative")
    yield Case("weights of the wrong length", _rows(w=lambda X, y: np.ones(79)), "shape|79")
    yield Case("weights in two columns", _rows(w=lambda X, y: np.ones((80, 2))), "1D|shape")
    yield Case("no rows", _rows(X=lambda X, y: X[:0], y=lambda X, y: y[:0]), "0 sample")
    yield Case("no columns", _rows(X=lambda X, y: X[:, :0]), "0 feature")
    yield Case("X of one dimension", _rows(X=lambda X, y: X[:, 0]), "1D array")
    yield Case("X of three dimensions", _rows(X=lambda X, y: X[:, :, None]), "dim 3|3 dim|3D")
    yield Case("X is a number", _rows(X=lambda X, y: 3.0), "scalar")
    yield Case("y of another length", _rows(y=lambda X, y: y[:-1]), "inconsistent")
    yield Case(
        "y of three dimensions", _rows(y=lambda X, y: y[:, None, None]), "dim 3|3 dim|3D"
    )
    yield Case("y is None", _rows(y=lambda X, y: None), "requires y")
    yield Case("X is complex", _rows(X=lambda X, y: X + 1j), "Complex")
    yield Case("y is complex", _rows(y=lambda X, y: y + 1j), "Complex")
    words = _rows(X=lambda X, y: np.full(X.shape, "a"))
    yield Case("X of strings", words, "OneHotEncoder or TargetEncoder")
    sites = _rows(X=lambda X, y: _frame(X, site="north"))
    yield Case("a column of strings", sites, r"columns \['site'\]\. Encode .*OneHotEncoder")
    kinds = _rows(X=lambda X, y: _frame(X, site=pd.Categorical(["n", "s"] * 40)))
    yield Case("a column of categories", kinds, r"columns \['site'\]\. Encode .*TargetEncoder")
    yield Case("y of strings", _rows(y=lambda X, y: np.full(len(y), "a")), "y must be numeric")
    missing = _rows(X=lambda X, y: _frame(X).astype("Float64").mask(_frame(X) > 2))
    yield Case("a nullable frame with NA", missing, r"NaN[\s\S]*SimpleImputer")
    yield Case("a value beyond float64", _rows(y=lambda X, y: _huge(y)), "infinity|large")
    yield Case("X_val without y_val", _rows(X_val=lambda X, y: X), "y_val is required")
    narrow = _rows(X_val=lambda X, y: X[:, :2], y_val=lambda X, y: y)
    yield Case("X_val of another width", narrow, "2 features")
    wrong: dict[str, tuple[Any, str]] = {
        "n_experts": (0, "n_experts.*Got 0"),
        "n_experts ": (2.5, "n_experts.*Got 2.5"),
        "n_experts  ": (True, "n_experts.*Got True"),
        "n_experts   ": ("3", "n_experts.*Got '3'"),
        "top_k": (0, "top_k.*Got 0"),
        "top_k ": (4, "at most n_experts. Got top_k=4 and n_experts=3"),
        "learning_rate": (float("nan"), "learning_rate.*Got nan"),
        "learning_rate ": (-1.0, "learning_rate.*Got -1"),
        "learning_rate  ": (float("inf"), "learning_rate.*Got inf"),
        "weight_decay": (-1, "weight_decay.*Got -1"),
        "max_epochs": (0, "max_epochs.*Got 0"),
        "batch_size": (0, "batch_size.*Got 0"),
        "validation_fraction": (1.0, "validation_fraction.*Got 1"),
        "gate": ("liner", "gate.*Got 'liner'.*Did you mean 'linear'"),
        "router": ("sofmax", "Did you mean 'softmax'"),
        "expert": (part("mlp", activation="rellu"), "Did you mean 'relu'"),
        "gate ": (part("mlp", hiden_dim=3), "Did you mean 'hidden_dim'"),
        "loss": ("squared", "Did you mean 'squared_error'"),
        "solver": ("adamm", "Did you mean 'adam'"),
        "embedding": ("periodc", "Did you mean 'periodic'"),
        "init": ("kmean", "Did you mean 'kmeans'"),
        "auxiliary_losses": ({"swich": 0.1}, "Did you mean 'switch'"),
        "auxiliary_losses ": ({"switch": -1}, "of at least 0. Got -1"),
        "device": ("cuda:99", "device='cuda:99' was asked for.*found"),
        "device ": ("gpu", "device must be"),
        "dtype": ("float16", "dtype.*Got 'float16'"),
        "random_state": ("zero", "random_state.*Got 'zero'"),
        "callbacks": (3, "callbacks.*Got 3"),
        "checkpoint": (3, "checkpoint.*Got 3"),
    }
    for name, (value, says) in wrong.items():
        yield Case(f"{name.strip()}={value!r}", _params(**{name.strip(): value}), says)


def _huge(y):
    return np.array([*y[:-1], np.longdouble("1e4000")], dtype=np.longdouble)


def _handled() -> Iterator[Case]:
    for dtype in ("float16", "float32", "float64", ">f8", "longdouble"):
        yield Case(f"X as {dtype}", _rows(X=lambda X, y, d=dtype: X.astype(d)))
    for dtype in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint64"):
        change = _rows(X=lambda X, y, d=dtype: np.round(10 * (X + 4)).astype(d))
        yield Case(f"X as {dtype}", change)
    yield Case("X as bool", _rows(X=lambda X, y: X > 0))
    yield Case("X as numbers in objects", _rows(X=lambda X, y: X.astype(object)))
    yield Case("X as lists", _rows(X=lambda X, y: X.tolist(), y=lambda X, y: y.tolist()))
    yield Case("X as numbers in strings", _rows(X=lambda X, y: X.astype(str).astype(object)))
    yield Case("X as a pandas frame", _rows(X=lambda X, y: _frame(X)))
    yield Case("X as a nullable frame", _rows(X=lambda X, y: _frame(X).astype("Float64")))
    yield Case("X as a polars frame", _rows(X=lambda X, y: pl.DataFrame(_frame(X))))
    yield Case(
        "y as a shuffled series", _rows(y=lambda X, y: pd.Series(y, index=range(80)[::-1]))
    )
    yield Case("y of integers", _rows(y=lambda X, y: np.round(10 * y).astype(int)))
    yield Case("y in one column", _rows(y=lambda X, y: y[:, None]))
    yield Case("y of two columns", _rows(y=lambda X, y: np.column_stack([y, -y])))
    yield Case("X in Fortran's order", _rows(X=lambda X, y: np.asfortranarray(X)))
    yield Case("X strided", _rows(X=lambda X, y: np.repeat(X, 2, axis=0)[::2]))
    yield Case("X backwards", _rows(X=lambda X, y: X[::-1][::-1]))
    yield Case("X read-only", _rows(X=lambda X, y: _read_only(X), y=lambda X, y: _read_only(y)))
    yield Case("a broadcast column", _rows(X=lambda X, y: np.column_stack([X, _broadcast(y)])))
    for n in (1, 2, 3):
        yield Case(f"{n} rows", _rows(X=lambda X, y, n=n: X[:n], y=lambda X, y, n=n: y[:n]))
    yield Case("more experts than rows", _params(n_experts=100))
    yield Case("one expert", _params(n_experts=1))
    yield Case("top_k of all", _params(top_k=3))
    yield Case("a constant feature", _rows(X=lambda X, y: X * [1, 1, 0] + [0, 0, 7]))
    yield Case("all rows the same", _rows(X=lambda X, y: 0 * X + 1))
    yield Case("a constant target", _rows(y=lambda X, y: 0 * y + 1e8 / 3))
    yield Case("weights of very different size", _rows(w=lambda X, y: np.logspace(-12, 12, 80)))
    yield Case("some weights of zero", _rows(w=lambda X, y: (np.arange(80) % 2).astype(float)))
    for size in (1e-300, 1e30, 1e200, 1e300):
        yield Case(f"X times {size:g}", _rows(X=lambda X, y, s=size: X * s))
        yield Case(f"y times {size:g}", _rows(y=lambda X, y, s=size: y * s))
    yield Case("X of denormals", _rows(X=lambda X, y: X * 1e-310))
    yield Case("an outlier", _rows(X=lambda X, y: _put(X, 1e6)))
    yield Case("an outlier of y", _rows(y=lambda X, y: _put(y, 1e6)))


def _read_only(values):
    values = values.copy()
    values.setflags(write=False)
    return values


def _broadcast(y):
    return np.broadcast_to(np.float64(3.0), len(y))


REFUSED, HANDLED = tuple(_refused()), tuple(_handled())


def kept(kind, case: Case) -> bool:
    """Whether it became of the case what had to."""
    return not fault(kind, case)


def fault(kind, case: Case) -> str:
    """What is wrong with how the case ended; nothing if all is well."""
    X, y = problem()
    given = case.change(X, y)
    X, y = given.get("X", X), given.get("y", y)
    moe = kind(**{**SMALL, "random_state": 0, **given.get("params", {})})
    more = {name: given[name] for name in ("X_val", "y_val") if name in given}
    before = np.array(X, copy=True) if isinstance(X, np.ndarray) else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prediction = moe.fit(X, y, sample_weight=given.get("w"), **more).predict(X)
    except (ValueError, TypeError) as error:
        if case.message is None:
            return f"refused: {error}"
        return "" if re.search(case.message, str(error)) else f"says: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if case.message is not None:
        return "accepted"
    if before is not None and not np.array_equal(before, X):
        return "X was changed"
    if not np.isfinite(prediction.astype(float)).all():
        return "a prediction is not finite"
    return _judged(case, np.asarray(y, dtype=float), prediction)


def _judged(case: Case, y, prediction) -> str:
    """Finite is enough where there is nothing to learn."""
    nothing = ("rows", "same", "constant target", "denormals", "outlier", "size")
    if any(word in case.name for word in nothing):
        return ""
    correlation = np.corrcoef(y.ravel() / np.abs(y).max(), prediction.ravel() / np.abs(y).max())
    return "" if correlation[0, 1] > USEFUL else f"correlation {correlation[0, 1]:.2f}"


def score_in_units(kind, X_factor: float, y_factor: float, offset: float, seed: int) -> float:
    """How much the score differs from that of the same rows in plain units."""
    X, y = problem(200)
    rng = np.random.default_rng(seed)
    X, y = X + 0.01 * rng.normal(size=X.shape), y + 0.01 * rng.normal(size=len(y))
    scores = []
    for rows in ((X, y), (X * X_factor + offset, y * y_factor + offset)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores.append(kind(**SMALL, random_state=seed).fit(*rows).score(*rows))
    return abs(scores[1] - scores[0])


def measure(scale: float, seed: int) -> Iterator[Figure]:
    """Every case for each estimator; at a small scale a part of them."""
    step = max(1, round(1 / scale))
    for title, cases in (("wrong inputs are refused", REFUSED), ("odd ones work", HANDLED)):
        tried = [(kind, case) for kind in KINDS for case in cases[::step]]
        faults = {f"{k.__name__}, {c.name}": f for k, c in tried if (f := fault(k, c))}
        note = f"{len(cases)} cases, two estimators" + "".join(
            f"; {name}: {text.splitlines()[0]}" for name, text in faults.items()
        )
        yield Figure(title, len(tried) - len(faults), len(tried), note)
    units = [
        (X_factor, y_factor, offset)
        for X_factor in (1e-12, 1.0, 1e12)
        for y_factor in (1e-12, 1.0, 1e12)
        for offset in (0.0, 1e8)
        if offset == 0.0 or X_factor == y_factor == 1.0
    ][1:]
    differences = [
        score_in_units(kind, *unit, seed + more)
        for kind in KINDS
        for unit in units[::step]
        for more in range(max(1, round(3 * scale)))
    ]
    yield Figure(
        f"the score in other units (1e-12 to 1e12, offset 1e8) is within {SAME_SCORE}",
        sum(difference <= SAME_SCORE for difference in differences),
        len(differences),
        f"largest difference {max(differences):.2g}",
    )
