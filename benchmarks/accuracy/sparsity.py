"""Goal 5: two of many experts against all of them, and against a dense net of equal cost."""

from benchmarks.accuracy import ours
from benchmarks.accuracy.compositional import ROTATED, composition
from benchmarks.accuracy.goal import Goal, Options
from benchmarks.accuracy.results import Line, Results, per_task
from benchmarks.protocol import Contestant
from benchmarks.tasks import Task

COUNTS = (16, 32)
TOP_K = 2
OF_SOFT, OF_TWIN = 1.1, 0.7
COLUMNS = {
    "NRMSE": "nrmse",
    "multiply-adds per row": "active_multiply_adds",
    "dead experts": "dead_experts",
    "fit s": "fit_seconds",
}


def tasks(options: Options) -> list[Task]:
    return [composition(options, combine, ROTATED) for combine in ("product", "sine")]


def _sparse(n_experts: int) -> Contestant:
    return ours.deep(f"top {TOP_K} of {n_experts}", n_experts=n_experts, top_k=TOP_K)


def _soft(n_experts: int) -> Contestant:
    return ours.deep(f"all of {n_experts}", n_experts=n_experts, top_k=None)


def _twin(n_experts: int) -> Contestant:
    return ours.dense_twin(_sparse(n_experts), f" to top {TOP_K} of {n_experts}")


def contestants(task: Task) -> list[Contestant]:
    return [kind(n) for n in COUNTS for kind in (_sparse, _soft, _twin)]


def lines(results: Results) -> list[Line]:
    found = []
    for task in results.tasks:
        for n in COUNTS:
            sparse = _sparse(n).name
            for other, limit in ((_soft(n).name, OF_SOFT), (_twin(n).name, OF_TWIN)):
                ratios = results.ratios(task, sparse, other)
                found.append(Line(f"{task}: error of {sparse} / {other}", ratios, limit))
    return found


def tables(results: Results) -> list[str]:
    return [per_task(results, task, COLUMNS, _sparse(COUNTS[0]).name) for task in results.tasks]


GOAL = Goal(
    5,
    "sparsity that pays",
    "`DeepMoERegressor`, default parameters but for `n_experts` and `top_k`, on the rotated "
    "targets of goal 2. The dense twin has as many multiply-adds per row as the sparse "
    "mixture, and a learning rate chosen on validation rows of the first seed.",
    tasks,
    contestants,
    lines,
    tables,
)
