"""
Factors and regions of a composition
====================================

The second theorem of Wang & E (2025) is about functions of many pieces that a few functions
make: here two factors, of two coordinates each, have three regions each. Their product has
nine pieces, and all of it is rotated into eight features. The deep mixture is to find the two
factors, and the regions of each.
"""

# %%
# Nothing is tuned. The fit finds out how many factors there are: that many layers it has.

from sklearn.ensemble import HistGradientBoostingRegressor

from skmoe import DeepMoERegressor
from skmoe.datasets import make_compositional_regression

task = {"n_blocks": 2, "n_regions": 3, "n_features": 8, "return_X_y": False}
rows = make_compositional_regression(5000, **task, random_state=1, task_random_state=0)
test = make_compositional_regression(3000, **task, random_state=2, task_random_state=0)

moe = DeepMoERegressor(random_state=0).fit(rows.data, rows.target)
trees = HistGradientBoostingRegressor(random_state=0).fit(rows.data, rows.target)
for name, model in (("deep mixture", moe), ("trees", trees)):
    error = (1 - model.score(test.data, test.target)) ** 0.5
    print(f"{name}: error over the deviation of the target {error:.3f}")

# %%
# Which layer has learned which factor? The one whose experts agree best with its regions.

import numpy as np
from sklearn.metrics import adjusted_rand_score

experts = moe.apply(test.data)  # a column for each layer
agreement = np.array(
    [[adjusted_rand_score(factor, layer) for layer in experts.T] for factor in test.regions.T]
)
for factor, scores in enumerate(agreement):
    print(f"factor {factor}: agreement with the layers", scores.round(2))

# %%
# Above the true regions of each factor, below the experts of its layer. There are more
# experts than regions, and several may share a region; what counts is that hardly any expert
# works on both sides of a true border.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(2, 2, figsize=(8, 8), layout="constrained")
for factor in range(2):
    layer = agreement[factor].argmax()
    points = test.latent[:, 2 * factor : 2 * factor + 2].T
    for ax, ids, title in (
        (axes[0, factor], test.regions[:, factor], f"factor {factor}: true regions"),
        (axes[1, factor], experts[:, layer], f"experts of layer {layer}"),
    ):
        ax.scatter(*points, c=ids, cmap="tab10", vmin=0, vmax=9, s=5)
        ax.set(title=title, aspect="equal")
plt.show()
