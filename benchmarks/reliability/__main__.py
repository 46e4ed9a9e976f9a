"""Put the promises of reliability to the test, and write how often each was kept.

    python -m benchmarks.reliability
    python -m benchmarks.reliability --section faults --scale 0.1

The folder of results gets ``<section>.csv``, one row per promise, and ``report.md`` with all
sections that have been measured there.
"""

import argparse
import csv
import importlib
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import command
from benchmarks.environment import describe
from benchmarks.reliability.figure import Figure
from benchmarks.store import write_text

# In the order of the report; each is a module here.
SECTIONS = {
    "inputs": "Wrong and odd inputs",
    "faults": "Faults amid a fit",
    "processes": "Processes, threads, resources",
    "files": "Files",
}
COLUMNS = ("promise", "kept", "tried", "note")


def sections() -> list[str]:
    """Those that there are."""
    package = "benchmarks.reliability"
    return [name for name in SECTIONS if importlib.util.find_spec(f"{package}.{name}")]


def measure(section: str, scale: float, seed: int) -> Iterator[Figure]:
    """The figures of a section, one after the other."""
    module = importlib.import_module(f"benchmarks.reliability.{section}")
    yield from module.measure(scale, seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)

    def work() -> None:
        for section in [args.section] if args.section else sections():
            _measure(args.output / f"{section}.csv", section, args.scale, args.seed)
        text = report(args.output, args.scale)
        write_text(args.output / "report.md", text)
        sys.stdout.write(text)

    return command.run(parser, work)


def _measure(path: Path, section: str, scale: float, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figures, started = [], time.perf_counter()
    for figure in measure(section, scale, seed):
        figures.append(figure)
        seconds, started = time.perf_counter() - started, time.perf_counter()
        sys.stderr.write(
            f"{section}: {figure.kept} of {figure.tried} {figure.promise} ({seconds:.0f} s)\n"
        )
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([f.promise, f.kept, f.tried, f.note] for f in figures)


def report(folder: Path, scale: float) -> str:
    """All sections that were measured, as a document."""
    lines = ["# Reliability", "", describe(), f"- Scale: {scale:g}"]
    for section, title in SECTIONS.items():
        path = folder / f"{section}.csv"
        if path.exists():
            lines += ["", f"## {title}", "", *_table(path)]
    return "\n".join(lines) + "\n"


def _table(path: Path) -> Iterator[str]:
    yield "| promise | kept | of | |"
    yield "|---|---|---|---|"
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            note = row["note"].replace("|", "\\|")
            yield f"| {row['promise']} | {row['kept']} | {row['tried']} | {note} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--section", choices=SECTIONS, help="only this one (default: all)")
    add("--scale", type=float, default=1.0, help="share of the tries (default: 1)")
    add("--seed", type=int, default=0, help="of rows, moments and fits (default: 0)")
    add("--output", type=Path, default=Path("results/reliability"), help="folder of results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
