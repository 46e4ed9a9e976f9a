import builtins

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skmoe.datasets import load_airfoil, load_concrete

TABLES = [(load_airfoil, 1503, 5), (load_concrete, 1030, 8)]


@pytest.mark.parametrize(("load", "n", "n_features"), TABLES)
def test_bunch(load, n, n_features):
    data = load()
    assert data.data.shape == (n, n_features)
    assert data.target.shape == (n,)
    assert data.data.dtype == data.target.dtype == np.float64
    assert np.isfinite(data.data).all()
    assert np.isfinite(data.target).all()
    assert data.data.flags.c_contiguous
    assert len(data.feature_names) == len(set(data.feature_names)) == n_features
    assert len(data.target_names) == 1
    assert data.frame is None
    assert data.filename.endswith(".csv")


@pytest.mark.parametrize(("load", "n", "n_features"), TABLES)
def test_return_X_y(load, n, n_features):
    X, y = load(return_X_y=True)
    data = load()
    assert_array_equal(X, data.data)
    assert_array_equal(y, data.target)


@pytest.mark.parametrize(("load", "n", "n_features"), TABLES)
def test_as_frame(load, n, n_features):
    pytest.importorskip("pandas")
    data = load(as_frame=True)
    assert data.frame.shape == (n, n_features + 1)
    assert list(data.data.columns) == data.feature_names
    assert [data.target.name] == data.target_names
    assert_array_equal(data.data.to_numpy(), load().data)
    X, y = load(return_X_y=True, as_frame=True)
    assert X.equals(data.data)
    assert y.equals(data.target)


@pytest.mark.parametrize(("load", "n", "n_features"), TABLES)
def test_descr_names_source_licence_and_centring(load, n, n_features):
    data = load()
    for text in ("CC BY 4.0", "creativecommons.org", "doi 10.24432/", "centred", str(n)):
        assert text in data.DESCR
    for name in (*data.feature_names, *data.target_names):
        assert name in data.DESCR
    for mean in (*data.feature_means, data.target_mean):
        assert f"{mean:.8g}" in data.DESCR


@pytest.mark.parametrize(("load", "n", "n_features"), TABLES)
def test_means_restore_the_original_units(load, n, n_features):
    data = load()
    assert_allclose(data.data.mean(axis=0), 0, atol=1e-4 * data.data.std(axis=0).min() + 0.02)
    X, y = data.data + data.feature_means, data.target + data.target_mean
    assert (X > -0.01).all()  # quantities, none below 0
    assert (y > 0).all()


def test_airfoil_has_the_frequencies_of_third_octaves():
    data = load_airfoil()
    frequency = np.unique((data.data + data.feature_means)[:, 0])
    thirds = [200, 250, 315, 400, 500, 630, 800, 1000, 1250, 1600, 2000, 2500, 3150, 4000]
    assert_allclose(frequency[: len(thirds)], thirds, atol=0.5)
    speed = np.unique(np.round((data.data + data.feature_means)[:, 3], 1))
    assert speed.tolist() == [31.7, 39.6, 55.5, 71.3]


def test_concrete_has_whole_days():
    data = load_concrete()
    age = np.unique(np.round((data.data + data.feature_means)[:, 7], 1))
    assert {1, 3, 7, 14, 28, 365} <= set(age)
    assert_allclose(age, np.rint(age))


@pytest.mark.parametrize(("load", "n", "n_features"), TABLES)
def test_each_call_gives_fresh_arrays(load, n, n_features):
    load().data[:] = 0
    assert load().data.any()


def test_missing_pandas_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def no_pandas(name, *args, **kwargs):
        if name == "pandas":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pandas)
    with pytest.raises(ImportError, match=r"as_frame=True needs pandas.*pip install pandas"):
        load_concrete(as_frame=True)
