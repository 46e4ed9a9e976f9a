"""
Kernels, trees, neighbours and a mixture
========================================

Which one is best depends on the function. Three of them, with 1,200 rows each: a smooth one,
one with jumps on a surface among many features, and a composition.
"""

from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmoe import DeepMoERegressor, MoERegressor
from skmoe.datasets import make_compositional_regression, make_manifold_regression

n = 1200
tasks = {
    "smooth sphere, 20 features": make_manifold_regression(
        2 * n, manifold="sphere", target="smooth", n_features=20, random_state=0
    ),
    "torus in 4 pieces, 20 features": make_manifold_regression(
        2 * n, manifold="torus", target="pieces", n_features=20, random_state=0
    ),
    "composition, 9 pieces, 4 features": make_compositional_regression(
        2 * n, n_blocks=2, n_regions=3, random_state=0
    ),
}

# %%
# The kernel machine has its width tuned, all others have their default parameters.

penalties = [10.0**power for power in range(-8, 1)]
kernel = make_pipeline(
    StandardScaler(), Nystroem(n_components=300, random_state=0), RidgeCV(penalties)
)
contestants = {
    "MoERegressor": MoERegressor(random_state=0),
    "DeepMoERegressor": DeepMoERegressor(random_state=0),
    "kernel": GridSearchCV(kernel, {"nystroem__gamma": [0.003, 0.01, 0.03, 0.1, 0.3]}, cv=3),
    "trees": HistGradientBoostingRegressor(random_state=0),
    "neighbours": make_pipeline(StandardScaler(), KNeighborsRegressor()),
}
errors = {}
for task, (X, y) in tasks.items():
    for name, model in contestants.items():
        model.fit(X[:n], y[:n])
        errors[task, name] = (1 - model.score(X[n:], y[n:])) ** 0.5

# %%
# Test error over the deviation of the target, on a logarithmic scale: lower is better.

import matplotlib.pyplot as plt
import numpy as np

figure, ax = plt.subplots(figsize=(9, 4.5), layout="constrained")
width = 0.8 / len(contestants)
for i, name in enumerate(contestants):
    places = np.arange(len(tasks)) + (i - 2) * width
    ax.bar(places, [errors[task, name] for task in tasks], width, label=name)
ax.set_xticks(range(len(tasks)), [task.replace(", ", "\n", 1) for task in tasks])
ax.set(yscale="log", ylabel="error / deviation of the target")
figure.legend(ncols=5, loc="outside upper center")
plt.show()

for task in tasks:
    ranked = sorted(contestants, key=lambda name: errors[task, name])
    print(f"{task}: " + ", ".join(f"{name} {errors[task, name]:.2g}" for name in ranked))

# %%
# On a smooth function without noise kernels are at home, and so are closed forms:
# `MoERegressor` solved for its last maps and never trained there. Where there are jumps,
# kernels lose what they are good at. Trees cut along features, which is right for a few
# features that mean something, and wrong for a surface that lies askew among twenty.
