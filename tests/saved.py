"""What tests of saved estimators share."""

import pytest

KINDS = ["shallow", "parallel", "stack", "ensemble"]
QUICK = {"max_epochs": 3, "hidden_dim": 4}
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
