"""
Fewer weights
=============

The experts' maps of a fitted mixture can be factorised together: behind a common encoder each
of them has a smaller map of its own. How much smaller, before the error rises?
"""

from sklearn.model_selection import train_test_split

from skmoe import MoERegressor
from skmoe.datasets import load_concrete

X, X_test, y, y_test = train_test_split(*load_concrete(return_X_y=True), random_state=0)
moe = MoERegressor(solver="adam", random_state=0).fit(X, y)


def n_weights(model):
    return sum(weight.numel() for weight in model.net_.parameters())


def error(model):
    return (1 - model.score(X_test, y_test)) ** 0.5


print(f"fitted: {n_weights(moe):,} weights, error {error(moe):.3f}")

# %%
# `compress` gives a new fitted estimator. With ``X`` it keeps what matters on these rows, and
# a few epochs of tuning make up for some of what was lost.

import copy

ranks = (2, 4, 8, 16, 32)
curves = {"by the maps": [], "by the rows": [], "by the rows, tuned": []}
sizes = []
for rank in ranks:
    by_rows = moe.compress(rank=rank, X=X)
    tuned = copy.deepcopy(by_rows).fine_tune(X, y, method="all", max_epochs=20)
    sizes.append(n_weights(by_rows) / n_weights(moe))
    for name, model in zip(curves, (moe.compress(rank=rank), by_rows, tuned), strict=True):
        curves[name].append(error(model))
    row = ", ".join(f"{name} {errors[-1]:.3f}" for name, errors in curves.items())
    print(f"rank {rank:>2}, {sizes[-1]:.0%} of the weights: {row}")

# %%

import matplotlib.pyplot as plt

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, errors in curves.items():
    ax.plot(sizes, errors, marker="o", label=name)
ax.axhline(error(moe), color="gray", ls=":", label="as fitted")
ax.set(
    xlabel="share of the weights", ylabel="test error / deviation of the target", xscale="log"
)
ax.set_xticks(sizes, [f"{size:.0%}" for size in sizes])
ax.minorticks_off()
ax.legend()
plt.show()
