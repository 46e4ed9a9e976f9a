"""Tasks hand out training and test rows that do not overlap."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import tasks


def write_npz(folder, n=40, n_splits=10):
    rng = np.random.default_rng(0)
    mask = np.zeros((n, n_splits), dtype=bool)
    for split in range(n_splits):
        mask[split : split + 4, split] = True
    X, y = rng.standard_normal((n, 3)), np.arange(n, dtype=float)
    np.savez(folder / "given.npz", X=X, y=y, test_mask=mask)
    return X, y, mask


@pytest.mark.parametrize("level", ["smoke", "demo", "full"])
def test_synthetic_tasks_have_distinct_names(level):
    names = [task.name for task in tasks.synthetic_tasks(level)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("task", tasks.synthetic_tasks("smoke"), ids=lambda task: task.name)
def test_synthetic_tasks_are_reproducible_and_differ_by_seed(task):
    first, again, other = task.make(0), task.make(0), task.make(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.y_train, other.y_train)
    assert first.X_train.shape[1] == task.facts["D"]


def test_noise_is_on_training_targets_only():
    settings = {"facts": {}, "n_test": 50, "n_features": 4}
    clean = tasks.synthetic("a", "circle", 500, **settings).make(0)
    noisy = tasks.synthetic("a", "circle", 500, noise=0.1, **settings).make(0)
    assert np.array_equal(clean.y_test, noisy.y_test)
    relative = np.std(noisy.y_train - clean.y_train) / np.std(clean.y_train)
    assert 0.08 < relative < 0.12


def test_a_folder_gives_its_fixed_splits(tmp_path):
    X, y, mask = write_npz(tmp_path)
    (task,) = tasks.folder(tmp_path)
    split = task.make(3)
    assert task.name == "given"
    assert task.n_splits == 10
    assert np.array_equal(split.y_test, y[mask[:, 3]])
    assert np.array_equal(split.X_train, X[~mask[:, 3]])


def test_a_folder_without_files_or_masks_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\.npz"):
        tasks.folder(tmp_path)
    np.savez(tmp_path / "bad.npz", X=np.zeros((3, 1)), y=np.zeros(3))
    with pytest.raises(ValueError, match="test_mask"):
        tasks.folder(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_ones_own(tmp_path, kind):
    frame = pd.DataFrame(
        {
            "price": [*np.arange(29.0), np.nan],
            "size": [np.nan, *np.arange(29.0)],
            "town": ["a", "b", "c"] * 10,
        }
    )
    path = tmp_path / f"mine.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    split = tasks.user_table(path, "price", parquet=kind == "parquet").make(0)
    assert split.X_train.shape[1] == 4
    assert len(split.y_train) + len(split.y_test) == 29
    assert np.isfinite(split.X_train).all()
    assert np.isfinite(split.X_test).all()


def test_errors_of_ones_own_table_name_the_column(tmp_path):
    path = tmp_path / "mine.csv"
    names = [f"name {i}" for i in range(30)]
    pd.DataFrame({"id": names, "y": range(30)}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="'id'"):
        tasks.user_table(path, "y")
    with pytest.raises(ValueError, match="--target must be one of"):
        tasks.user_table(path, "z")
