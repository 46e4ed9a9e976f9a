"""
How sure is it?
===============

With ``loss="gaussian_nll"`` a mixture predicts a distribution: one layer of experts a mixture
of normal ones, one for each expert. So it can tell where targets scatter more, and where they
have two branches.
"""

# %%
# On the left half the noise grows; on the right half there are two branches, and nothing in x
# tells which.

import numpy as np

from skmoe import MoERegressor

random = np.random.default_rng(0)


def draw(n):
    x = random.uniform(-1, 1, n)
    branch = random.choice([-1.0, 1.0], n)
    left = np.sin(4 * x) + (0.05 + 0.4 * np.abs(x)) * random.standard_normal(n)
    right = branch * x + 0.05 * random.standard_normal(n)
    return x[:, None], np.where(x < 0, left, right)


X, y = draw(1500)
X_test, y_test = draw(5000)
moe = MoERegressor(n_experts=6, loss="gaussian_nll", max_epochs=100, random_state=0).fit(X, y)

# %%
# `predict` with ``return_std=True`` gives mean and standard deviation, `sample` draws
# targets.

import matplotlib.pyplot as plt

grid = np.linspace(-1, 1, 200)[:, None]
mean, std = moe.predict(grid, return_std=True)
draws = moe.sample(X_test[:1500], random_state=0)

figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
axes[0].scatter(X_test[:1500], y_test[:1500], s=4)
axes[0].set(title="new rows")
axes[1].plot(grid, mean, color="C1")
axes[1].fill_between(grid[:, 0], mean - 2 * std, mean + 2 * std, color="C1", alpha=0.3)
axes[1].set(title="mean, and two standard deviations")
axes[2].scatter(X_test[:1500], draws, s=4, color="C2")
axes[2].set(title="draws of the model")
for ax in axes:
    ax.set(xlabel="x")
axes[0].set(ylabel="y")
plt.show()

# %%
# Mean and deviation cannot show branches; draws do, as each comes from one expert. Are the
# numbers right? Of an interval from quantiles of many draws, one can count how many targets
# are inside.

many = moe.sample(X_test, n_samples=500, random_state=1)
for share in (0.5, 0.8, 0.95):
    low, high = np.quantile(many, [(1 - share) / 2, (1 + share) / 2], axis=1)
    inside = ((low <= y_test) & (y_test <= high)).mean()
    print(f"intervals of {share:.0%}: {inside:.1%} of the new targets are inside")
mean, std = moe.predict(X_test, return_std=True)
for name, half in (("left", X_test[:, 0] < 0), ("right", X_test[:, 0] >= 0)):
    print(f"{name} half: mean predicted deviation {std[half].mean():.3f}")
