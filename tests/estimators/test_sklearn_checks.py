"""scikit-learn's estimator checks: in full with default parameters, no expected failures."""

import pytest
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_inplace_ensure_writeable,
    check_param_validation,
    parametrize_with_checks,
)

from skmoe import DeepMoERegressor, MoERegressor

ESTIMATORS = [MoERegressor(), DeepMoERegressor()]
SMALL = {"n_experts": 6, "hidden_dim": 8, "max_epochs": 50, "embedding": None}
SMALL["learning_rate"] = 0.03
SMALL_DEEP = {**SMALL, "n_layers": 2, "model_dim": 16}

pytestmark = [
    # The checks themselves warn: of unconverged fits of random data, of deprecated input.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning"),
]


@parametrize_with_checks(ESTIMATORS, xfail_strict=True)
def test_default_parameters(estimator, check):
    check(estimator)


def _variants():
    for top_k, dtype in [(None, "float64"), (1, "float32"), (2, "float64")]:
        yield MoERegressor(top_k=top_k, dtype=dtype, **SMALL)
        yield DeepMoERegressor(top_k=top_k, dtype=dtype, **SMALL_DEEP)
    yield DeepMoERegressor(arrangement="stack", dtype="float32", **SMALL_DEEP)


@parametrize_with_checks(list(_variants()), xfail_strict=True)
def test_routing_and_precision(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "check",
    [
        check_dataframe_column_names_consistency,
        check_param_validation,
        check_inplace_ensure_writeable,
    ],
    ids=lambda check: check.__name__,
)
def test_checks_that_scikit_learn_runs_on_its_own_estimators(estimator, check):
    check(type(estimator).__name__, estimator)
