"""
Regions on a torus among 50 features
====================================

A two-dimensional torus lies in 50 features. It is cut into four pieces, with a smooth
function on each and jumps in between. The mixture sees only the 50 features and the target,
and is to find the pieces.
"""

# %%
# From 5,000 rows on some are held out, and with these the fit can look for the borders between
# the jumps, and start the gate there: see ``init`` in :class:`skmoe.MoERegressor`. Fewer epochs
# than the default keep it short.

from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import adjusted_rand_score

from skmoe import MoERegressor
from skmoe.datasets import make_manifold_regression

task = {"manifold": "torus", "n_features": 50, "return_X_y": False, "task_random_state": 0}
rows = make_manifold_regression(5000, **task, random_state=1)
test = make_manifold_regression(3000, **task, random_state=2)

moe = MoERegressor(max_epochs=50, random_state=0)
moe.fit(rows.data, rows.target)
trees = HistGradientBoostingRegressor(random_state=0).fit(rows.data, rows.target)


def nrmse(model):
    return (1 - model.score(test.data, test.target)) ** 0.5


expert = moe.apply(test.data)
truth = test.regions[:, 0]
print(f"error over the deviation of y: mixture {nrmse(moe):.3f}, trees {nrmse(trees):.3f}")
print(f"agreement of experts with the pieces: {adjusted_rand_score(truth, expert):.2f} (of 1)")

# %%
# The torus, unrolled: its two angles are the axes, and opposite sides of the square are the
# same. Colours of experts are matched with those of the pieces that they share most rows
# with.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from sklearn.metrics.cluster import contingency_matrix

most_shared = contingency_matrix(truth, expert).argmax(axis=0)
asked = np.unique(expert)
color_of = np.full(expert.max() + 1, -1)
color_of[asked] = most_shared
colors = ListedColormap([plt.get_cmap("tab10")(i) for i in range(4)])

figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
panels = [
    ("target", test.target),
    ("true piece", truth),
    ("piece of the expert", color_of[expert]),
]
for ax, (title, values) in zip(axes, panels, strict=True):
    kind = {"cmap": "viridis"} if title == "target" else {"cmap": colors, "vmin": 0, "vmax": 3}
    ax.scatter(*test.latent.T, c=values, s=5, **kind)
    ax.set(title=title, xlabel="first angle", ylabel="second angle", aspect="equal")
plt.show()

# %%
# A row on the wrong side of a jump is wrong by all of the jump. How many are there, and what do
# they do to the error?

wrong = color_of[expert] != truth
error = np.abs(moe.predict(test.data) - test.target)
print(f"rows on the wrong side: {wrong.mean():.1%}, with {error[wrong].mean():.2f} mean error")
print(f"all others: {error[~wrong].mean():.3f}")
