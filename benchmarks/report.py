"""The report: results as Markdown tables, and in words where we lose.

Everything is generated from ``results.csv`` and ``run.json``; nothing is measured here.
"""

import json
import math
from pathlib import Path

import pandas as pd

from benchmarks import environment, plots
from benchmarks.contestants import CONTESTANTS
from benchmarks.store import write_text

CLEARLY = 1.05  # ratios up to here are called level: one seed's noise is no smaller

TEXT = ["task", "contestant", "family", "kind", "sweeps", "status", "warnings", "message"]


def write(folder: Path) -> str:
    """Write ``report.md`` and plots into the folder; a short text for the terminal."""
    table = folder / "results.csv"
    if not table.exists():
        return f"No results in {folder}.\n"
    rows = load(table)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    pictures = plots.draw_all(rows, folder)
    text = compose(rows, run, [picture.name for picture in pictures])
    write_text(folder / "report.md", text)
    return f"{headline(rows)}\nTable, plots and rows: {folder}/report.md\n"


def load(table: Path) -> pd.DataFrame:
    """The rows, contestants in the order of the menu."""
    # Said, not guessed: a column of text may be empty everywhere.
    rows = pd.read_csv(table, dtype=dict.fromkeys(TEXT, "str"))
    rows[TEXT] = rows[TEXT].fillna("")
    order = [c.name for c in CONTESTANTS]
    present = [name for name in order if name in set(rows["contestant"])]
    rows["contestant"] = pd.Categorical(rows["contestant"], present, ordered=True)
    return rows


def compose(rows: pd.DataFrame, run: dict, pictures: list[str]) -> str:
    """The whole report."""
    parts = [
        "# Comparison",
        _origin(run),
        "## Against the others",
        headline(rows),
        "## Test error of each task",
        _explanation(rows),
        errors_table(rows),
        "## Over all tasks",
        summary_table(rows),
        "## Where we lose",
        losses(rows),
    ]
    incidents = _incidents(rows)
    if incidents:
        parts += ["## Not measured", incidents]
    if pictures:
        parts += ["## Plots", "\n\n".join(f"![{name}]({name})" for name in pictures)]
    return "\n\n".join(parts) + "\n"


def _origin(run: dict) -> str:
    """Command, machine and versions of every session."""
    lines = [f"    {run['sessions'][-1]['command']}", ""]
    for session in run["sessions"]:
        lines.append(environment.describe({k: v for k, v in session.items() if k != "command"}))
    settings = run["settings"]
    lines.append(
        f"- Rules: GridSearchCV, {settings['folds']} shuffled folds of the training rows, "
        f"threads for each contestant: {settings['threads']}, contestants interleaved in one "
        "process."
    )
    machines = {(s.get("cpu"), s.get("skmoe")) for s in run["sessions"]}
    if len(machines) > 1:
        lines.append("- **Rows come from different machines or versions: distrust the times.**")
    return "\n".join(lines)


def _explanation(rows: pd.DataFrame) -> str:
    n_seeds = rows["seed"].nunique()
    spread = f"median of up to {n_seeds} seeds (min to max)" if n_seeds > 1 else "one seed"
    return (
        "NRMSE: test RMSE over the standard deviation of the test targets, "
        f"{spread}. **Bold**: best of the row. * ours, + controls of equal active cost."
    )


def medians(rows: pd.DataFrame, value: str = "nrmse") -> pd.DataFrame:
    """Median over seeds, tasks x contestants, families together."""
    fine = rows[rows["status"] == "ok"]
    wide = fine.pivot_table(
        values=value,
        index=["family", "task"],
        columns="contestant",
        aggfunc="median",
        observed=False,
        sort=False,
    )
    names = [name for name in rows["contestant"].cat.categories if name in wide.columns]
    return wide.reindex(columns=names)


def errors_table(rows: pd.DataFrame) -> str:
    """Tasks x contestants."""
    middle = medians(rows)
    contestants = list(rows["contestant"].cat.categories)
    marks = {"ours": "*", "control": "+"}
    kinds = _kinds(rows)
    header = [
        "task",
        "n",
        "D",
        *(f"{name}{marks.get(kinds[name], '')}" for name in contestants),
    ]
    body = []
    for task, group in rows.groupby("task", sort=False):
        fine = group[group["status"] == "ok"]
        best = middle.xs(task, level="task").min(axis=1).iloc[0] if len(fine) else None
        cells = [_cell(group[group["contestant"] == name], best) for name in contestants]
        first = group.iloc[0]
        body.append([task, f"{first['n_train']:.0f}", f"{first['D']:.0f}", *cells])
    return markdown(header, body)


def _cell(rows: pd.DataFrame, best: float | None) -> str:
    """Median and spread of one contestant on one task, or why there is none."""
    if not len(rows):
        return ""
    errors = rows.loc[rows["status"] == "ok", "nrmse"]
    if not len(errors):
        return rows["status"].iloc[0]
    text = number(errors.median())
    if best is not None and errors.median() <= best:
        text = f"**{text}**"
    if len(errors) > 1:
        text += f" ({number(errors.min())} to {number(errors.max())})"
    n_failed = (rows["status"] == "failed").sum()
    return text + (f", {n_failed} failed" if n_failed else "")


def number(value: float) -> str:
    """Three digits, without powers of ten where they can be avoided."""
    if math.isnan(value):
        return "-"
    return f"{value:.1e}" if 0 < value < 5e-4 or value >= 1e4 else f"{value:#.3g}".rstrip(".")


def _kinds(rows: pd.DataFrame) -> dict[str, str]:
    return dict(zip(rows["contestant"], rows["kind"], strict=True))


def summary_table(rows: pd.DataFrame) -> str:
    """One line for each contestant: rank, distance to the best, times."""
    middle = medians(rows)
    if middle.empty:
        return "Nothing was measured."
    ranks, ratios = middle.rank(axis=1), middle.div(middle.min(axis=1), axis=0)
    reference = _reference(rows)
    # A method of one candidate has no search.
    times = {
        value: medians(rows, value)
        .reindex(columns=middle.columns)
        .pipe(lambda t: t.div(t[reference], axis=0))
        for value in ("fit_seconds", "search_seconds", "predict_seconds")
    }
    seconds = medians(rows, "fit_seconds")
    header = [
        "contestant",
        "tasks",
        "mean rank",
        "error / best of the task",
        "best",
        "fit seconds",
        *(f"{name.split('_')[0]} time / {reference}" for name in times),
    ]
    body = [
        [
            name,
            f"{middle[name].notna().sum()}",
            f"{ranks[name].mean():.1f}",
            _median_and_quartiles(ratios[name]),
            f"{(ranks[name] == 1).sum()}",
            number(seconds[name].median()),
            *(number(table[name].median()) for table in times.values()),
        ]
        for name in sorted(middle.columns, key=lambda name: ranks[name].mean())
    ]
    note = (
        "Medians over tasks, with quartiles for the error. Ranks and ratios of a method that "
        "skips large tasks are over its own tasks only."
    )
    return f"{note}\n\n{markdown(header, body)}"


def _reference(rows: pd.DataFrame) -> str:
    """The method whose times are 1."""
    names = list(rows.loc[rows["status"] == "ok", "contestant"].unique())
    return "HistGradientBoosting" if "HistGradientBoosting" in names else names[0]


def _median_and_quartiles(values: pd.Series) -> str:
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return f"{number(middle)} ({number(low)} to {number(high)})"


def ratios_to_others(rows: pd.DataFrame) -> pd.DataFrame:
    """Our error over that of the best other method and of each control, for every task.

    The best other is chosen for each task by its test error, in hindsight, which flatters
    it; ours and the controls are not chosen.
    """
    middle, kinds = medians(rows), _kinds(rows)
    others = [n for n in middle.columns if kinds[n] not in ("ours", "control")]
    controls = [n for n in middle.columns if kinds[n] == "control"]
    found = []
    for name in (n for n in middle.columns if kinds[n] == "ours"):
        against = {"best other": middle[others].min(axis=1)} if others else {}
        against |= {control: middle[control] for control in controls}
        for rival, errors in against.items():
            ratio = (middle[name] / errors).rename("ratio").reset_index()
            found.append(ratio.assign(ours=name, rival=rival))
    if not found:
        return pd.DataFrame(columns=["family", "task", "ratio", "ours", "rival"])
    return pd.concat(found).dropna(subset="ratio")


def headline(rows: pd.DataFrame) -> str:
    """Our error over that of others, by family: below 1 is better."""
    ratios = ratios_to_others(rows)
    if ratios.empty:
        return "Neither ours nor others were measured."
    families = list(dict.fromkeys(ratios["family"]))
    header = ["error of ... / error of ...", *families, "all tasks"]
    body = []
    for (ours, rival), group in ratios.groupby(["ours", "rival"], sort=False):
        if not _fair_pair(ours, rival):
            continue
        by_family = [group.loc[group["family"] == f, "ratio"] for f in families]
        cells = [number(v.median()) if len(v) else "" for v in by_family]
        body.append([f"{ours} / {rival}", *cells, _median_and_quartiles(group["ratio"])])
    note = (
        "Ratio of test errors, median over tasks (quartiles); below 1 we are better. *Best "
        "other* is the best method outside skmoe, chosen anew for each task by its test error."
    )
    return f"{note}\n\n{markdown(header, body)}"


def _fair_pair(ours: str, rival: str) -> bool:
    """A control stands beside the estimator that it was matched to."""
    shallow = ours == "MoERegressor"
    return rival == "best other" or shallow == ("shallow" in rival)


def losses(rows: pd.DataFrame) -> str:
    """Sentences on the tasks where each of ours is clearly behind."""
    middle, kinds = medians(rows), _kinds(rows)
    sentences = []
    for name in (n for n in middle.columns if kinds[n] == "ours"):
        rivals = [n for n in middle.columns if kinds[n] != "ours"]
        lines = [
            _loss(task, errors[name], errors[rivals].dropna())
            for (_, task), errors in middle.iterrows()
            if pd.notna(errors[name])
        ]
        lost = [line for line in lines if line]
        sentences.append(
            f"**{name}** has a test error more than {CLEARLY - 1:.0%} above that of some other "
            f"contestant, controls included, on {len(lost)} of {len(lines)} tasks."
        )
        sentences += lost
    return "\n".join(f"{'' if s.startswith('**') else '- '}{s}" for s in sentences) or "-"


def _loss(task: str, own: float, rivals: pd.Series) -> str | None:
    better = rivals[own > CLEARLY * rivals].sort_values()
    if better.empty:
        return None
    rest = f", and behind {len(better) - 1} more" if len(better) > 1 else ""
    best, ratio = better.iloc[0], own / better.iloc[0]
    return (
        f"{task}: {number(own)}, {number(ratio)} times the {number(best)} "
        f"of {better.index[0]}{rest}"
    )


def _incidents(rows: pd.DataFrame) -> str:
    """Skipped, failed and missing contestants, with the reason."""
    bad = rows[rows["status"] != "ok"]
    lines = []
    for (name, status, message), group in bad.groupby(
        ["contestant", "status", "message"], sort=False, observed=True, dropna=False
    ):
        tasks = ", ".join(dict.fromkeys(group["task"]))
        lines.append(f"- {name} {status} ({message}): {tasks}")
    return "\n".join(lines)


def markdown(header: list[str], body: list[list[str]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *body])
