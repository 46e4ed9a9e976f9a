"""Measure a goal for accuracy, or write its report again.

    python -m benchmarks.accuracy --goal 2 --seeds 5
    python -m benchmarks.accuracy --goal 7 --data FOLDER --contestants 'CatBoost|LightGBM'
    python -m benchmarks.accuracy --goal 2 --again MoE --tasks rotated
    python -m benchmarks.accuracy --goal 2 --report

The folder of results gets ``results.csv``, one row per fit, and ``report.md``. Interrupt at
any time and give the same command again to go on; several processes may fill one folder, as
with different contestants.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command, environment
from benchmarks.accuracy.goal import Goal, Options

MODULES = {
    1: "paper_tables",
    2: "compositional",
    3: "recombination",
    4: "manifold",
    5: "sparsity",
    6: "more_experts",
    7: "real_data",
    8: "how_many",
}


def goal_of(number: int) -> Goal:
    """The goal of this number."""
    return importlib.import_module(f"benchmarks.accuracy.{MODULES[number]}").GOAL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    output = args.output or Path("results") / f"accuracy-goal-{args.goal}"
    options = Options(
        seeds=args.seeds,
        tasks=args.tasks,
        contestants=args.contestants,
        again=args.again,
        retry_failed=args.retry_failed,
        threads=args.threads or environment.default_threads(),
        data=args.data,
        largest=args.largest,
        level="smoke" if args.trial else "full",
    )
    goal = goal_of(args.goal)

    def work() -> None:
        if not args.report:
            environment.set_threads(options.threads)
            goal.measure(output, options)
        sys.stdout.write(goal.report(output))

    return command.run(parser, work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--goal", type=int, choices=MODULES, required=True, help="which goal")
    add("--output", type=Path, help="folder of results (default: results/accuracy-goal-N)")
    add("--seeds", type=int, default=5, help="number of seeds or splits (default: 5)")
    add("--tasks", metavar="PATTERN", default="", help="only tasks whose name it matches")
    add("--contestants", metavar="PATTERN", default="", help="likewise, contestants")
    add("--again", metavar="PATTERN", help="measure these contestants anew")
    add("--retry-failed", action="store_true", help="run failed contestants again")
    add("--threads", type=int, help="threads of every contestant (default: all cores)")
    add("--data", type=Path, help="folder of .npz files with X, y and test_mask")
    add("--largest", type=int, default=100_000, help="most training rows (default: 100,000)")
    add("--trial", action="store_true", help="tiny tasks and fits, to see that all is well")
    add("--report", action="store_true", help="only write the report again")
    return parser


if __name__ == "__main__":
    sys.exit(main())
