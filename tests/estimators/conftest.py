"""A small problem, and the kinds of estimators to try on it."""

import numpy as np
import pytest


@pytest.fixture(params=["shallow", "parallel", "stack", "ensemble"])
def kind(request):
    return request.param


@pytest.fixture(scope="session")
def problem():
    """120 rows, 3 features, units far from 1."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3)) * [1.0, 50.0, 0.01] + [0.0, 300.0, 1.0]
    y = 40 + 7 * np.sin(X[:, 0]) + 0.05 * X[:, 1] + rng.normal(size=120) * 0.1
    return X, y
