"""
A grid search in one go
=======================

`GridSearchCV` trains one net after the other. `BatchedGridSearchCV` trains them side by side,
as one program. The models are the same up to rounding; what differs is the time,
and here is how much, on the machine that made this page.
"""

# %%
# Two numbers of experts, three learning rates, two decays and three folds are 36 nets, all of
# which go together. Nets are small, and so are batches: it is there that a step costs mostly
# calls, which are shared.

import time

from sklearn.model_selection import GridSearchCV

from skmoe import MoERegressor
from skmoe.datasets import make_circle_regression
from skmoe.search import BatchedGridSearchCV

X, y = make_circle_regression(300, random_state=0)
moe = MoERegressor(hidden_dim=8, solver="adam", batch_size=50, max_epochs=25, random_state=0)
grid = {
    "n_experts": [2, 4],
    "learning_rate": [0.003, 0.01, 0.03],
    "weight_decay": [0.0, 0.1],
}

seconds, searches = {}, {}
for kind in (GridSearchCV, BatchedGridSearchCV):
    start = time.perf_counter()
    searches[kind] = kind(moe, grid, cv=3, verbose=1).fit(X, y)
    seconds[kind] = time.perf_counter() - start
    print(f"{kind.__name__}: {seconds[kind]:.1f} seconds")
print(f"ratio: {seconds[GridSearchCV] / seconds[BatchedGridSearchCV]:.1f}")

# %%
# The scores of all candidates agree, and so does the choice.

import numpy as np

plain, batched = (search.cv_results_ for search in searches.values())
gap = np.abs(plain["mean_test_score"] - batched["mean_test_score"]).max()
print(f"largest difference of two scores: {gap:.1e}")
np.testing.assert_allclose(plain["mean_test_score"], batched["mean_test_score"], atol=1e-6)
for kind, search in searches.items():
    print(f"best of {kind.__name__}: {search.best_params_}")

# %%
# Times of single fits are amortised: what is done for many together counts in equal shares, so
# that they add up to the time taken.

import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for search, marker in ((plain, "o"), (batched, "x")):
    left.plot(search["mean_test_score"], marker, ms=9, mfc="none")
    right.plot(search["mean_fit_time"], marker, ms=9, mfc="none")
left.legend(["one after the other", "side by side"])
left.set(xlabel="candidate", ylabel="mean R^2 of the folds")
right.set(xlabel="candidate", ylabel="mean seconds of a fit", ylim=(0, None))
plt.show()

# %%
# What goes together and what does not: :doc:`/guide/searches`.
