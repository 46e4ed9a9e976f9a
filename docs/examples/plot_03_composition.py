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
# Above the true regions of each factor, below the experts of its layer. There are more experts
# than regions, and several share one: experts have the colour of the region that they work for
# most, in shades of their own. What counts is that hardly any works on both sides of a border.

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb
from sklearn.metrics.cluster import contingency_matrix


def shades(region, expert):
    """A colour for each row, and the share of rows that lie where their expert mostly works."""
    rows = contingency_matrix(region, expert)
    home = rows.argmax(axis=0)
    rank = np.array([np.sum(home[:e] == home[e]) for e in range(len(home))])
    base = np.array([to_rgb(f"C{r}") for r in home])
    colors = base + (1 - base) * (0.6 * rank / max(rank.max(), 1))[:, None]
    number = np.unique(expert, return_inverse=True)[1]
    return colors[number], rows.max(axis=0).sum() / len(expert)


figure, axes = plt.subplots(2, 2, figsize=(7, 7.4), layout="constrained")
for factor, (above, below) in enumerate(axes.T):
    layer = agreement[factor].argmax()
    points = test.latent[:, 2 * factor : 2 * factor + 2].T
    region = test.regions[:, factor]
    colors, share = shades(region, experts[:, layer])
    print(f"factor {factor}: {share:.1%} of the rows lie where their expert mostly works")
    above.scatter(*points, c=[f"C{r}" for r in region], s=5)
    above.set_title(f"factor {factor}: the truth", fontsize=15)
    below.scatter(*points, c=colors, s=5)
    below.set_title(f"experts of layer {layer}", fontsize=15)
    for ax in (above, below):
        ax.set(aspect="equal", xticks=(0, 1), yticks=(0, 1))
        ax.set(xlabel=f"$x_{2 * factor}$ before the rotation", ylabel=f"$x_{2 * factor + 1}$")
plt.show()
