"""Each goal runs from the command line to a report, in miniature."""

import numpy as np
import pytest

from benchmarks.accuracy.__main__ import MODULES, goal_of, main
from benchmarks.accuracy.goal import Options
from benchmarks.accuracy.results import Results
from benchmarks.store import read_rows

# A task and some contestants of each goal, for a look at the whole way.
TRIALS = {
    2: ("^product, 64 pieces, rotated", "Deep|dense twin|LightGBM|Nystroem"),
    3: ("^product", "Deep|one expert|HistGrad"),
    4: ("^torus, pieces, D=50, n=10000$|^torus, smooth.*, D=50, n=10000$", "MoE|KN|Nyst"),
    5: ("^product", "of 16"),
    6: ("^torus", "E=(2|4)$"),
    7: ("", "MoE|Hist|CatBoost|RealMLP|Nystroem"),
    8: ("^torus", "default|E=1$|L=1$"),
}


@pytest.fixture
def data(tmp_path):
    """A folder with two small tables."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for name, n in (("larger", 60), ("smaller", 40)):
        X = rng.standard_normal((n, 3))
        mask = np.zeros((n, 2), dtype=bool)
        mask[:10] = True
        np.savez(folder / f"{name}.npz", X=X, y=X @ [1.0, 2.0, 0.0], test_mask=mask)
    return folder


def command(number, out, *more):
    return main(["--goal", str(number), "--output", str(out), "--threads", "1", *more])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", TRIALS)
def test_a_goal_runs_and_reports(number, tmp_path, data, capsys):
    tasks, contestants = TRIALS[number]
    given = ["--trial", "--seeds", "1", "--tasks", tasks, "--contestants", contestants]
    if number == 7:
        given += ["--data", str(data)]
    out = tmp_path / "out"
    assert command(number, out, *given) == 0
    rows = read_rows(out / "results.csv")
    states = {row["status"] for row in rows}
    assert states <= {"ok", "not installed"}, [row["message"] for row in rows]
    report = (out / "report.md").read_text()
    assert report.startswith(f"# Goal {number}: ")
    assert "| verdict |" in report
    assert "threads 1" in report
    assert str(tmp_path) not in report
    assert report in capsys.readouterr().out


@pytest.mark.parametrize("number", sorted(set(MODULES) - {1}))
def test_tasks_and_contestants_have_distinct_names(number, data):
    goal = goal_of(number)
    assert goal.number == number
    tasks = goal.tasks(Options(data=data, largest=10**7))
    assert tasks
    assert len({task.name for task in tasks}) == len(tasks)
    for task in tasks:
        names = [contestant.name for contestant in goal.contestants(task)]
        assert len(set(names)) == len(names)
        assert {c.kind for c in goal.contestants(task)} >= {"ours"}


def test_the_paper_is_held_against_a_tenth_of_its_errors():
    from benchmarks import paper
    from benchmarks.accuracy.paper_tables import lines

    error = paper.PAPER["1-4-MoE"][0] / 20
    rows = [
        {
            "task": "I: 16",
            "seed": str(seed),
            "status": "ok",
            "mse": str(mse),
            "contestant": name,
        }
        for seed in range(3)
        for name, mse in (("1-4-MoE plain", error / 10), ("1-4-MoE ours", error))
    ]
    found = {line.claim.partition(":")[2]: line for line in lines(rows)}
    first = lines(rows)[0]
    assert first.values == pytest.approx([0.05] * 3)
    assert "met" in first.verdict
    assert len(found) > 1
    assert lines(rows)[-1].verdict == "not measured"


def test_nothing_measured_is_a_report_too(tmp_path, capsys):
    for number in (1, 2):
        assert command(number, tmp_path / str(number), "--report") == 0
        assert "Nothing was measured" in capsys.readouterr().out


def test_a_pattern_without_a_match_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(2, tmp_path, "--contestants", "nobody")
    assert "must match" in capsys.readouterr().err


def test_unseen_cells_have_no_training_rows():
    goal = goal_of(3)
    split = goal.tasks(Options(level="smoke"))[0].make(0)
    assert len(split.X_train) == 240
    assert len(split.X_unseen) > 50
    both = np.vstack([split.X_train, split.X_test, split.X_unseen])
    assert len(np.unique(both, axis=0)) == len(both)


def test_manifold_targets_do_not_depend_on_the_number_of_features():
    by_name = {t.name: t for t in goal_of(4).tasks(Options(level="smoke", largest=10_000))}
    low = by_name["torus, pieces, D=50, n=10000"].make(0)
    high = by_name["torus, pieces, D=500, n=10000"].make(0)
    assert np.array_equal(low.y_train, high.y_train)
    assert high.X_train.shape[1] == 500


def rows_of(task, errors, column="nrmse"):
    return [
        {
            "task": task,
            "seed": str(s),
            "contestant": c,
            "status": "ok",
            "nrmse": "",
            column: str(e),
        }
        for c, values in errors.items()
        for s, e in enumerate(values)
    ]


def test_each_of_ours_is_ranked_among_peers_alone():
    from benchmarks.accuracy.real_data import lines

    first = {"DeepMoERegressor": [1], "MoERegressor": [2], "A": [3], "B": [4], "slow": [0.5]}
    second = {"DeepMoERegressor": [1], "MoERegressor": [2], "A": [1.5], "B": [4]}
    results = Results(rows_of("x", first) + rows_of("y", second))
    found = {line.claim: line for line in lines(results)}
    among = "among the 2 peers that have all sets, 2 sets (best of them: A)"
    alone = found[f"mean rank of MoERegressor {among}"]
    assert list(alone.values) == [1.5]
    assert alone.verdict == "**met**"
    one_set = next(line for c, line in found.items() if "DeepMoERegressor among all" in c)
    assert (list(one_set.values), one_set.limit, one_set.verdict) == ([2], 1, "not met")


def test_slopes_over_dimension_and_rows():
    from benchmarks.accuracy.manifold import lines, name_of

    points = {(50, 10_000): 0.1, (500, 10_000): 0.2, (50, 100_000): 0.01}
    rows = []
    for (D, n), error in points.items():
        rows += rows_of(
            name_of("torus", "pieces", D, n), {"MoERegressor": [error], "KN": [1.0]}
        )
    found = {line.claim: line for line in lines(Results(rows))}
    over_D = found["torus, pieces, n=10000: slope of log error over log D (MoERegressor)"]
    over_n = found["torus, pieces, D=50: slope over log n from n=10000 (MoERegressor)"]
    assert over_D.values == pytest.approx([np.log10(2)])
    assert over_n.values == pytest.approx([-1])
    assert [line.verdict for line in (over_D, over_n)] == ["not met", "**met**"]


def test_a_rise_counts_if_most_seeds_get_worse():
    from benchmarks.accuracy.more_experts import COUNTS, lines

    def verdicts(last):
        errors = {f"DeepMoERegressor, E={E}": [1 / E] * 5 for E in COUNTS}
        errors[f"DeepMoERegressor, E={COUNTS[-1]}"] = last
        rows = [row | {"dead_experts": "0.1"} for row in rows_of("x", errors)]
        return [line.verdict for line in lines(Results(rows))]

    before = 1 / COUNTS[-2]
    assert verdicts([0.9 * before] * 3 + [1.1 * before] * 2)[0] == "**met**"
    assert verdicts([0.9 * before] + [1.1 * before] * 4)[0] == "not met"
    assert verdicts([before] * 5)[1:] == ["**met**", "not met"]


def test_the_paper_goal_runs_all_trainings(tmp_path, monkeypatch):
    from benchmarks import paper

    entry = paper.Entry("I", "1-4-MoE", 16, paper.circle(16), 2, paper.shallow(4, 10))
    monkeypatch.setattr(paper, "entries", lambda: iter([entry]))
    monkeypatch.setattr(paper, "FINISH_ITERATIONS", 2)
    assert command(1, tmp_path / "out", "--seeds", "1") == 0
    rows = read_rows(tmp_path / "out" / "results.csv")
    assert {row["contestant"] for row in rows} == {
        f"1-4-MoE {training}" for training in paper.TRAININGS
    }
    assert "Verdicts of goal 1" in (tmp_path / "out" / "report.md").read_text()
