"""Where results are kept: a folder in which nothing is ever half-written or lost.

=================  ========================================================================
``results.csv``    one row for each (task, seed, contestant), rewritten as a whole and moved
                   into place after each, so that a reader or a power cut sees old or new
``run.json``       what was asked for, and the machine and versions of every session
=================  ========================================================================
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

Row = dict[str, Any]
KEY = ("task", "seed", "contestant")


class DifferentRunError(RuntimeError):
    """The folder holds results of a run with other settings."""


class Store:
    """Rows in a folder, resumable.

    Parameters
    ----------
    path : str or Path
        The folder; made if it is missing.
    columns : sequence of str
        Columns of the table, in order.
    shared : bool, default=False
        Whether several runs may fill the folder at once: the lock is then held only while a
        row is written, and rows of the others are read again before.

    Use as a context manager: it holds a lock on the folder, so that a second run cannot
    overwrite the first one's rows.
    """

    def __init__(self, path: str | Path, columns: Iterable[str], shared: bool = False):
        self.path = Path(path)
        self.columns = tuple(columns)
        self.shared = shared
        self.path.mkdir(parents=True, exist_ok=True)
        self._rows = {_key(row): row for row in read_rows(self.table)}
        self._lock: Any = None

    @property
    def table(self) -> Path:
        return self.path / "results.csv"

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    def __enter__(self) -> Self:
        if not self.shared:
            self._lock = self._locked(wait=False)
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def _locked(self, wait: bool) -> Any:
        """The folder's lock file, locked; closing it unlocks."""
        lock = (self.path / ".lock").open("w")
        try:
            _lock_file(lock, self.path, wait)
        except DifferentRunError:
            lock.close()
            raise
        return lock

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock of a shared folder, with the rows of other runs read again."""
        if not self.shared:
            yield
            return
        with self._locked(wait=True):
            self._rows = {_key(row): row for row in read_rows(self.table)}
            yield

    def row(self, task: str, seed: int, contestant: str) -> Row | None:
        """A row as text; None if there is none."""
        if self.shared:
            self._rows = {_key(row): row for row in read_rows(self.table)}
        return self._rows.get((task, str(seed), contestant))

    def status(self, task: str, seed: int, contestant: str) -> str | None:
        """Status of a row; None if there is none."""
        row = self.row(task, seed, contestant)
        return row["status"] if row else None

    def measured(self, task: str, seed: int, column: str) -> dict[str, int]:
        """A whole number of each contestant that has one on this task and seed."""
        rows = self._rows.values()
        return {
            row["contestant"]: int(row[column])
            for row in rows
            if (row["task"], row["seed"]) == (task, str(seed)) and row.get(column)
        }

    def add(self, row: Row) -> None:
        """Keep a row, in place of an earlier one of the same key."""
        kept = {column: _text(row.get(column)) for column in self.columns}
        with self._writing():
            self._rows[_key(kept)] = kept
            _write(self.table, self._write_table)

    def forget(self, tasks: Iterable[str], contestants: Iterable[str]) -> None:
        """Drop the rows of these contestants on these tasks, to measure them again."""
        tasks, contestants = set(tasks), set(contestants)
        with self._writing():
            self._rows = {
                key: row
                for key, row in self._rows.items()
                if row["task"] not in tasks or row["contestant"] not in contestants
            }
            _write(self.table, self._write_table)
            self._forget_definitions()

    def _forget_definitions(self) -> None:
        """Contestants without rows may be defined anew."""
        run = self.run()
        left = {row["contestant"] for row in self._rows.values()}
        defined = run["settings"].get("contestants", {})
        run["settings"]["contestants"] = {k: v for k, v in defined.items() if k in left}
        write_text(self.run_file, json.dumps(run, indent=1))

    def _write_table(self, file: Any) -> None:
        writer = csv.DictWriter(file, self.columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(self._rows.values())

    def start_session(self, settings: dict[str, Any], session: dict[str, str]) -> None:
        """Check that the folder belongs to this run, and note the machine.

        Raises
        ------
        DifferentRunError
            If anything that both runs have in common was defined in another way.
        """
        with self._writing():
            self._start_session(settings, session)

    def _start_session(self, settings: dict[str, Any], session: dict[str, str]) -> None:
        run = self.run()
        differences = list(_differences(run["settings"], settings))
        if differences and self._rows:
            raise DifferentRunError(
                f"{self.path} holds results of a run with other settings:\n  "
                + "\n  ".join(differences[:8])
                + "\nGive another --output, the same settings, or --restart, which keeps "
                "the old results under another name."
            )
        merged = _merge(run["settings"], settings) if self._rows else settings
        sessions = run["sessions"] if self._rows else []
        if session not in sessions:
            sessions = [*sessions, session]
        content = json.dumps({"settings": merged, "sessions": sessions}, indent=1)
        write_text(self.run_file, content)

    def run(self) -> dict[str, Any]:
        """Settings and sessions of the folder."""
        if not self.run_file.exists():
            return {"settings": {}, "sessions": []}
        return json.loads(self.run_file.read_text(encoding="utf-8"))

    def restart(self) -> None:
        """Begin anew; earlier results stay in the folder under another name."""
        number = 1
        while (self.path / f"results.{number}.csv").exists():
            number += 1
        for file in (self.table, self.run_file):
            if file.exists():
                file.rename(file.with_suffix(f".{number}{file.suffix}"))
        self._rows = {}


def read_rows(table: Path) -> list[Row]:
    """Rows of a table as text; none if there is no file."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _write(path: Path, fill: Any) -> None:
    """Write a file beside its place, then move it there: a reader never sees a part."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one piece."""
    _write(path, lambda file: file.write(text))


def _lock_file(file: Any, folder: Path, wait: bool) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: no lock, one run at a time is up to the user
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise DifferentRunError(f"another run is writing to {folder}.") from None


def _differences(old: Any, new: Any, where: str = "") -> Iterable[str]:
    """Sentences on what both have and define differently."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() & new.keys():
            yield from _differences(old[name], new[name], f"{where} {name}")
    elif old != new:
        yield f"{where.strip()}: was {old!r}, now {new!r}"


def _merge(old: Any, new: Any) -> Any:
    """Old and new together, for two settings without differences."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {name: _merge(old.get(name), value) for name, value in new.items()}
