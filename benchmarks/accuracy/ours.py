"""Our estimators as contestants, by default parameters, and controls of equal cost."""

from dataclasses import dataclass
from typing import Any

from sklearn.pipeline import Pipeline

from benchmarks.dense_twin import matched_grid
from benchmarks.protocol import Contestant, Situation
from skmoe import DeepMoERegressor, MoERegressor

# Learning rates that the dense twin chooses among, in units of ours; which "auto" is for the
# many rows that controls are measured on.
RATE_FACTORS = (1 / 3, 1.0, 3.0)
AUTO_RATE = 5e-3
TRIAL = {"moe__max_epochs": [2]}

DEEP = "DeepMoERegressor"
SHALLOW = "MoERegressor"
RIDGE = "MoERegressor, solver ridge"
DENSE_BLOCKS = "dense blocks, higher cost"
OURS = (DEEP, SHALLOW)


@dataclass(frozen=True)
class Build:
    """`Situation` -> one of our estimators, default parameters but for `params`."""

    estimator: type
    params: tuple[tuple[str, Any], ...] = ()

    def __call__(self, s: Situation) -> Pipeline:
        return Pipeline([("moe", self.estimator(random_state=s.seed, **dict(self.params)))])


def deep(name: str = DEEP, **params: Any) -> Contestant:
    """`DeepMoERegressor`, default parameters but for `params`."""
    return _ours(name, DeepMoERegressor, params)


def shallow(name: str = SHALLOW, **params: Any) -> Contestant:
    """`MoERegressor`, default parameters but for `params`."""
    return _ours(name, MoERegressor, params)


def _ours(name: str, estimator: type, params: dict[str, Any]) -> Contestant:
    build = Build(estimator, tuple(params.items()))
    return Contestant(name, "ours", build, {"full": {}, "smoke": TRIAL})


def training_free() -> Contestant:
    """The closed-form fit."""
    return shallow(RIDGE, solver="ridge")


@dataclass(frozen=True)
class EqualCost:
    """Candidates of a control: our cost per row, some learning rates.

    Everything but sizes is the same as in ours: embedding, encoders, schedule, finish. The
    cost is that of the fit of `measured` on the same rows, if that is given and was measured
    before; else that of our network before a fit has found regions, which is never less.
    """

    control: str
    build: Build
    measured: str | None = None
    factors: tuple[float, ...] = (1.0,)

    def resolve(self, s: Situation) -> list[dict[str, list]]:
        ours = self.build(s).named_steps["moe"]
        ours_rate = AUTO_RATE if ours.learning_rate == "auto" else ours.learning_rate
        rates = [{"learning_rate": ours_rate * factor} for factor in self.factors]
        cost = s.costs.get(self.measured)
        candidates = matched_grid(self.control, ours, rates, s.X, s.y, cost)
        return [{f"moe__{k}": [v] for k, v in one.items()} for one in candidates]

    def __repr__(self) -> str:
        settings = self.control, self.build.params, self.measured, self.factors
        return f"EqualCost{settings!r}"


def controls(ours: Contestant, label: str = "") -> list[Contestant]:
    """The dense twin, as costly per row as `ours`; one expert and dense blocks, more costly.

    The latter two have the head of our network before it has found regions, which alone may
    cost more than our network afterwards: so they cost what that does before. A fit of theirs
    takes many times as long as ours, and their learning rate is ours; the twin chooses its own.
    """
    one_expert = _control("one expert", f"one expert, higher cost{label}", ours)
    dense_blocks = _control("dense blocks", DENSE_BLOCKS + label, ours)
    return [one_expert, dense_blocks, dense_twin(ours, label)]


def dense_twin(ours: Contestant, label: str = "") -> Contestant:
    """A dense residual net that costs what `ours` did."""
    name = f"dense twin, equal cost{label}"
    return _control("dense twin", name, ours, ours.name, RATE_FACTORS)


def _control(control: str, name: str, ours: Contestant, *settings: Any) -> Contestant:
    grids = {"full": EqualCost(control, ours.build, *settings)}
    # A search costs as much as all seeds together: it is made once, on the first of them.
    return Contestant(name, "control", ours.build, grids, search_once=True)
