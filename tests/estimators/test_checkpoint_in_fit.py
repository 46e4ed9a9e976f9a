"""Fits that are killed go on from their checkpoint, and end with the same bits."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, EarlyStopping
from small import make

import skmoe.checkpoint
from skmoe import part

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def after_each_epoch(monkeypatch):
    monkeypatch.setattr(skmoe.checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(skmoe.checkpoint, "TIMES_ITSELF", 0)


class Killed(BaseException):
    """What no part of a fit handles, as little as it could a kill."""


class Kill(Callback):
    """Ends a fit at a batch of training, counted over all stages."""

    def __init__(self, batch):
        self.left = batch

    def on_batch_end(self, net, training=None, **kwargs):
        self.left -= training
        if training and self.left == 0:
            raise Killed


class Quiet(Kill):
    """The same in name only, which is what callbacks are compared by, beside settings."""

    def __init__(self):
        super().__init__(-1)


Quiet.__name__ = "Kill"


def outcome(moe):
    """All that a fit leaves but the time it took."""
    state = moe.__getstate__()
    history = [{k: v for k, v in e.items() if "seconds" not in k} for e in moe.history_]
    return joblib.hash((state["_model"], state["_optimizer_state"], history, moe.best_loss_))


KINDS = {
    "shallow": {},
    "noisy": {"gate": part("linear", noise=0.1, temperature=(1, 0.5)), "batch_size": 32},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 3, "batch_size": 16},
    "the user's early stopping": {"callbacks": [EarlyStopping("train_loss", patience=2)]},
    "ridge": {"solver": "adam+ridge"},
    "lbfgs": {"solver": "adam+lbfgs"},
    "diverging": {"learning_rate": 1e4, "solver": "adam"},
    "float32": {"dtype": "float32", "router": "noisy_top_k"},
    "balanced": {"router": part("normalized_sigmoid", balance_rate=0.01), "top_k": 2},
    "auxiliary": {"auxiliary_losses": {part("group_sparsity", shape=(2, 2)): 0.1}},
    "warm start": {"warm_start": True},
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_a_fit_that_was_killed_ends_with_the_same_bits(name, batch, problem, tmp_path):
    settings = {"callbacks": [], **KINDS[name], "checkpoint": None}
    others = settings.pop("callbacks")
    expected = outcome(make("shallow", **settings, callbacks=[*others, Quiet()]).fit(*problem))
    settings["checkpoint"] = tmp_path / "fit.npz"
    with pytest.raises(Killed):
        make("shallow", **settings, callbacks=[*others, Kill(batch)]).fit(*problem)
    again = make("shallow", **settings, callbacks=[*others, Quiet()]).fit(*problem)
    assert outcome(again) == expected


@pytest.mark.parametrize("arrangement", ["parallel", "stack", "ensemble"])
def test_deep_mixtures_go_on_as_well(arrangement, problem, tmp_path):
    settings = {"early_stopping": "auto", "checkpoint": tmp_path / "fit"}
    expected = make(arrangement, early_stopping="auto", callbacks=[Quiet()]).fit(*problem)
    with pytest.raises(Killed):
        make(arrangement, **settings, callbacks=[Kill(12)]).fit(*problem)
    again = make(arrangement, **settings, callbacks=[Quiet()]).fit(*problem)
    assert outcome(again) == outcome(expected)


class Count(Callback):
    """Counts epochs over all fits."""

    epochs = 0

    def on_epoch_end(self, net, **kwargs):
        Count.epochs += 1


def test_at_most_one_epoch_is_lost(problem, tmp_path):
    Count.epochs = 0
    moe = make("shallow", checkpoint=tmp_path / "fit", callbacks=[Count(), Kill(9)])
    with pytest.raises(Killed):
        moe.fit(*problem)
    assert Count.epochs == 8
    moe.set_params(callbacks=[Count(), Quiet()]).fit(*problem)
    assert Count.epochs == 20
    assert moe.n_iter_ == len(moe.history_) == 20


def test_a_fit_that_is_done_is_taken_from_the_file(problem, tmp_path):
    Count.epochs = 0
    settings = {"checkpoint": tmp_path / "fit", "random_state": None, "callbacks": [Count()]}
    first = make("shallow", **settings).fit(*problem)
    again = make("shallow", **settings).fit(*problem)
    assert Count.epochs == 20
    assert outcome(first) == outcome(again)
    assert skmoe.checkpoint._read(tmp_path / "fit")["finished"]
    (tmp_path / "fit").unlink()
    (tmp_path / "fit.before").unlink()
    assert outcome(make("shallow", **settings).fit(*problem)) != outcome(first)


def test_ctrl_c_keeps_the_checkpoint(problem, tmp_path):
    class Interrupt(Kill):
        def on_batch_end(self, net, training=None, **kwargs):
            if len(net.history) == 5:
                raise KeyboardInterrupt

    Interrupt.__name__ = "Kill"
    expected = make("shallow", callbacks=[Quiet()]).fit(*problem)
    moe = make("shallow", callbacks=[Interrupt(0)], checkpoint=tmp_path / "fit")
    with pytest.raises(KeyboardInterrupt):
        moe.fit(*problem)
    assert moe.n_iter_ == 4
    moe.set_params(callbacks=[Quiet()]).fit(*problem)
    assert outcome(moe) == outcome(expected)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 0.5, "n_experts": 5}, "another learning_rate, n_experts"),
        ({"random_state": 1}, "another random_state"),
        ({"gate": part("mlp", hidden_dim=3)}, "another gate"),
    ],
    ids=str,
)
def test_other_parameters_are_refused(change, named, problem, tmp_path):
    make("shallow", checkpoint=tmp_path / "fit").fit(*problem)
    with pytest.raises(ValueError, match=f"must be of the same fit. Got .* {named}"):
        make("shallow", checkpoint=tmp_path / "fit", **change).fit(*problem)


def test_other_data_are_refused(problem, tmp_path):
    X, y = problem
    moe = make("shallow", checkpoint=tmp_path / "fit", verbose=0).fit(X, y)
    weight = np.ones(len(y))
    weight[0] = 2.0
    changes = [
        ((X * 2, y), {}),
        ((X, y + 1), {}),
        ((X, y), {"sample_weight": weight}),
        ((X, y), {"X_val": X[:9], "y_val": y[:9]}),
    ]
    for rows, more in changes:
        with pytest.raises(ValueError, match="of a fit with another data"):
            moe.fit(*rows, **more)
    moe.fit(np.asfortranarray(X), list(y))  # the same in another form


def test_a_warm_start_from_elsewhere_is_refused(problem, tmp_path):
    moe = make("shallow", checkpoint=tmp_path / "fit", warm_start=True).fit(*problem)
    with pytest.raises(ValueError, match="another warm start"):
        moe.fit(*problem)


def test_callbacks_with_other_settings_are_refused(problem, tmp_path):
    def fit(patience):
        stopping = EarlyStopping("train_loss", patience=patience)
        make("shallow", checkpoint=tmp_path / "fit", callbacks=[stopping]).fit(*problem)

    fit(2)
    fit(2)
    with pytest.raises(ValueError, match="of a fit with another callbacks"):
        fit(3)


class Recorder(Callback):
    """Keeps what can neither be compared nor stored, and changes."""

    def __init__(self, losses, stream):
        self.losses, self.stream = losses, stream

    def on_epoch_end(self, net, **kwargs):
        self.losses.append(net.history[-1]["train_loss"])


def test_callbacks_may_hold_anything(problem, tmp_path):
    recorder = Recorder([], sys.stdout)
    quiet = EarlyStopping("train_loss", patience=99, sink=lambda text: None)
    moe = make("shallow", checkpoint=tmp_path / "fit", callbacks=[recorder, quiet])
    first = outcome(moe.fit(*problem))
    assert len(recorder.losses) == moe.n_iter_
    assert outcome(moe.fit(*problem)) == first


def test_the_users_generator_moves_as_it_did_for_the_first_time(problem, tmp_path):
    draws = []
    for _ in range(2):
        random = np.random.RandomState(0)
        make("shallow", random_state=random, checkpoint=tmp_path / "fit").fit(*problem)
        draws.append(random.randint(1000))
    assert draws[0] == draws[1]


def test_a_link_leads_to_the_file_and_the_one_before_lies_beside_it(problem, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "fit")
    make("shallow", checkpoint=tmp_path / "link").fit(*problem)
    assert (tmp_path / "link").is_symlink()
    assert sorted(file.name for file in (tmp_path / "far").iterdir()) == ["fit", "fit.before"]


def test_the_same_fit_may_run_several_times_at_once(problem, tmp_path):
    expected = outcome(make("shallow").fit(*problem))
    moes = [make("shallow", checkpoint=tmp_path / "fit") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        fitted = list(pool.map(lambda moe: moe.fit(*problem), moes))
    assert {outcome(moe) for moe in fitted} == {expected}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fit", "fit.before"]


def test_parameters_that_no_other_process_can_find_are_refused(problem, tmp_path):
    losses = {lambda routing, weight: routing.scores_BTE.mean(): 0.1}
    with pytest.raises(ValueError, match="checkpoint needs parameters that another process"):
        make("shallow", checkpoint=tmp_path / "fit", auxiliary_losses=losses).fit(*problem)


def killed_at_12(problem, path):
    with pytest.raises(Killed):
        make("shallow", checkpoint=path, callbacks=[Kill(12)]).fit(*problem)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_gives_way_to_the_one_before(seed, problem, tmp_path):
    path = tmp_path / "fit"
    expected = make("shallow", callbacks=[Quiet()]).fit(*problem)
    killed_at_12(problem, path)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    if seed < 4:
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    else:
        data = data[: rng.integers(len(data))]
    path.write_bytes(data)
    moe = make("shallow", checkpoint=path, callbacks=[Quiet()])
    with pytest.warns(UserWarning, match="is damaged, or is none. The fit goes on from the"):
        moe.fit(*problem)
    assert outcome(moe) == outcome(expected)


def test_a_file_that_is_no_checkpoint_is_left_alone(problem, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="There is no whole one before it either"):
        make("shallow", checkpoint=path).fit(*problem)
    assert path.read_text() == "a,b\n1,2\n"


def test_between_two_renames_the_one_before_serves(problem, tmp_path):
    path = tmp_path / "fit"
    expected = make("shallow", callbacks=[Quiet()]).fit(*problem)
    killed_at_12(problem, path)
    os.replace(path, tmp_path / "fit.before")
    again = make("shallow", checkpoint=path, callbacks=[Quiet()]).fit(*problem)
    assert outcome(again) == outcome(expected)


def test_a_fit_survives_a_full_disk(problem, tmp_path, monkeypatch):
    expected = make("shallow").fit(*problem)
    moe = make("shallow", checkpoint=tmp_path / "fit", callbacks=[_FullDisk(monkeypatch)])
    with pytest.warns(RuntimeWarning, match="was not written, and the fit goes on without"):
        moe.fit(*problem)
    assert outcome(moe) == outcome(expected)
    assert not list(tmp_path.glob(".*.tmp"))


class _FullDisk(Callback):
    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch

    def on_train_begin(self, net, **kwargs):
        def fail(descriptor):
            raise OSError(28, "No space left on device")

        self.monkeypatch.setattr(os, "fsync", fail)


def test_a_place_that_cannot_be_written_is_told_before_the_fit(problem, tmp_path):
    with pytest.raises(FileNotFoundError):
        make("shallow", checkpoint=tmp_path / "nowhere" / "fit").fit(*problem)


def test_reading_runs_no_code(problem, tmp_path):
    make("shallow", checkpoint=tmp_path / "fit").fit(*problem)
    with np.load(tmp_path / "fit", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiub" for name in arrays.files)


def test_short_fits_are_written_once(problem, tmp_path, monkeypatch):
    monkeypatch.undo()
    written = []
    original = skmoe.checkpoint._write
    monkeypatch.setattr(
        skmoe.checkpoint, "_write", lambda *a: (written.append(1), original(*a))
    )
    make("shallow", checkpoint=tmp_path / "fit").fit(*problem)
    assert len(written) <= 3  # at the start, at the end, and once if the machine is busy


def test_a_search_that_was_killed_does_no_fit_twice(problem, tmp_path):
    X, y = problem
    grid = {"n_experts": [2, 3], "learning_rate": [0.01, 0.02]}

    def search(moe):
        return GridSearchCV(moe, grid, cv=2, n_jobs=1).fit(X, y)

    expected = search(make("shallow"))
    Count.epochs = 0
    KillAll.left = 70
    moe = make("shallow", checkpoint=tmp_path, callbacks=[Count(), KillAll()])
    with pytest.raises(Killed):
        search(moe)
    assert Count.epochs == 69
    again = search(moe)
    assert Count.epochs == 9 * 20  # eight candidates and folds, and the refit
    assert np.array_equal(
        again.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    assert np.array_equal(again.predict(X), expected.predict(X))


class KillAll(Callback):
    """Ends a search before an epoch, counted over all fits: `clone` copies callbacks."""

    left = 0

    def on_epoch_begin(self, net, **kwargs):
        KillAll.left -= 1
        if KillAll.left == 0:
            raise Killed


def test_the_same_parameters_have_the_same_place_in_a_folder(problem, tmp_path):
    for moe in (make("shallow", checkpoint=tmp_path), make("parallel", checkpoint=tmp_path)):
        moe.fit(*problem)
        moe.fit(*problem)
    files = [path.name for path in tmp_path.iterdir() if path.suffix == ".npz"]
    assert len(files) == 2
