"""
A fitted model at a new site
============================

A model was fitted to data of many conditions. At a new site only some of them occur, and
things are a little different there. `fine_tune` goes on from the fitted model: with all
weights, with the experts that the new rows ask and nothing else, or with small adapters
around the frozen model.
"""

# %%
# A composition of two factors. The new site has rows of one region of the first factor only,
# and the target is larger there. For the new site there are 200 rows.

import numpy as np

from skmoe import MoERegressor
from skmoe.datasets import make_compositional_regression

task = {"n_blocks": 2, "n_regions": 3, "return_X_y": False, "task_random_state": 0}
old = make_compositional_regression(2000, **task, random_state=1)
new = make_compositional_regression(6000, **task, random_state=2)


def at_the_site(data):
    here = data.regions[:, 0] == 0
    changed = data.target + 1.0 + 0.5 * np.sin(6 * data.data[:, 0])
    return here, np.where(here, changed, data.target)


here, changed = at_the_site(new)
X_site, y_site = new.data[here][:200], changed[here][:200]
X_test, y_test = new.data[here][200:], changed[here][200:]
X_else, y_else = new.data[~here], new.target[~here]

# Two of 16 experts are asked; a balance loss keeps most of them in use.
sparse = {"n_experts": 16, "top_k": 2, "auxiliary_losses": {"switch": 0.1}, "solver": "adam"}
fitted = MoERegressor(**sparse, random_state=0).fit(old.data, old.target)

# %%
# Errors at the site and elsewhere, over the deviation of the target, and the share of the
# weights that learned.

import copy


def errors(model):
    spread = old.target.std()
    pairs = ((X_test, y_test), (X_else, y_else))
    return [np.sqrt(np.mean((model.predict(X) - y) ** 2)) / spread for X, y in pairs]


n_weights = sum(weight.numel() for weight in fitted.net_.parameters())
found = {"as fitted": (*errors(fitted), 0.0)}
for method in ("all", "experts", "adapters"):
    model = copy.deepcopy(fitted).fine_tune(X_site, y_site, method=method)
    found[method] = (*errors(model), model.n_tuned_weights_ / n_weights)
fresh = MoERegressor(**sparse, random_state=0).fit(X_site, y_site)
found["fitted anew"] = (*errors(fresh), 1.0)
for name, (site, elsewhere, share) in found.items():
    print(f"{name:12} site {site:.3f}   elsewhere {elsewhere:.3f}   weights {share:.1%}")

# %%
# Tuned models are far better at the site than the model as it was, and better than one fitted
# anew to so few rows if their bars are lower. But they forget: elsewhere, errors rise. Frozen
# experts keep every row that only they answer; rows that ask a tuned expert too are changed
# with it.

import matplotlib.pyplot as plt

figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
places = np.arange(len(found))
ax.bar(places - 0.2, [row[0] for row in found.values()], 0.4, label="at the site")
ax.bar(places + 0.2, [row[1] for row in found.values()], 0.4, label="elsewhere")
ax.set_xticks(places, found)
ax.set(ylabel="error / deviation of the target")
ax.legend()
plt.show()
