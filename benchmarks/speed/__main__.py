"""Run ``python -m benchmarks.speed [--turns 5] [--only step fit predict ...] [--data FOLDER]``.

Cases on real tables need a folder of ``.npz`` files; each turn takes another of their splits.
Those of a GPU (``--only gpu --output results/gpu``) need one.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.command import run
from benchmarks.environment import describe
from benchmarks.frame import command_line, ratios, run_and_report, spread
from benchmarks.speed import __doc__ as about
from benchmarks.speed import fits, gpu, imports, layers, race, searches
from benchmarks.speed.case import Case, seconds_of
from benchmarks.speed.plot import Found, draw
from benchmarks.store import Store, read_rows

COLUMNS = ("task", "seed", "contestant", "status", "seconds")
FIRST_SEED = 1000
PICTURE = "ratios.png"


def all_cases(only: list[str] | None, data: Path | None = None) -> list[Case]:
    """Those whose name starts with one of these words; all without any."""
    cases = [*layers.cases(), *fits.cases(), *race.cases(data), *searches.cases()]
    cases += [*imports.cases(), *gpu.cases()]
    return [case for case in cases if not only or case.name.startswith(tuple(only))]


def measure(store: Store, case: Case, turns: int) -> None:
    """What is missing of a case: a turn is one call of each contestant, or a few."""
    for turn in range(min(turns, case.turns or turns)):
        contestants = None
        for name in _names(case):
            if store.status(case.name, turn, name) is not None:
                continue
            contestants = contestants or case.make(FIRST_SEED + turn)
            seconds = seconds_of(contestants[name], case.calls, case.wall)
            row = {"task": case.name, "seed": turn, "contestant": name, "status": "ok"}
            store.add({**row, "seconds": f"{seconds:.6g}"})


def _names(case: Case) -> list[str]:
    """All contestants that a goal asks for."""
    names = [name for goal in case.goals for name in (goal.numerator, goal.denominator)]
    return list(dict.fromkeys(names))


def found_in(store: Store, cases: list[Case]) -> list[Found]:
    """What was measured of the goals."""
    rows, found = read_rows(store.table), []
    for case in cases:
        for goal in case.goals:
            pair = goal.numerator, goal.denominator
            if turns := ratios(rows, [case.name], *pair, "seconds"):
                found.append(Found(case, goal, turns))
    return found


def report(store: Store, cases: list[Case]) -> str:
    """The table of ratios, and a picture beside it."""
    found = found_in(store, cases)
    draw(found, store.table.with_name(PICTURE))
    lines = [
        "# Speed",
        "",
        "`python -m benchmarks.speed`: ratios of times in a turn, median [smallest, largest].",
        "",
        describe(store.run()["sessions"][-1]),
        "",
        f"![Ratios over what was asked]({PICTURE})",
        "",
        "| work | ratio of times | measured | asked | met |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_line, found)]) + "\n"


def _line(one: Found) -> str:
    """A row of the table."""
    goal, asked = one.goal, ""
    if goal.at_most is not None:
        asked = f"<= {goal.at_most:g}"
    elif goal.at_least is not None:
        asked = f">= {goal.at_least:g}"
    verdict = {None: "", True: "yes", False: "no"}[one.met]
    pair = f"{goal.numerator} / {goal.denominator}"
    return f"| {one.case.name} | {pair} | {spread(one.ratios, 2)} | {asked} | {verdict} |"


def parser() -> argparse.ArgumentParser:
    parser = command_line(about or "", "speed")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder of tables, for the races")
    parser.add_argument("--only", nargs="*", help="first words of the cases to run")
    return parser


def main(arguments: list[str] | None = None) -> int:
    commands = parser()
    options = commands.parse_args(arguments)
    cases = all_cases(options.only, options.data)

    def work(store: Store) -> None:
        for case in cases:
            measure(store, case, options.turns)

    def told(store: Store) -> str:
        return report(store, all_cases(None, options.data))

    return run(commands, lambda: run_and_report(options, COLUMNS, work, told))


if __name__ == "__main__":
    sys.exit(main())
