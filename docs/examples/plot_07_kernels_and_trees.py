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
# Test error over the deviation of the target: shorter is better. Each task has a scale of its
# own.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True, layout="constrained")
colors = ["C0" if "MoE" in name else "0.7" for name in contestants]
for ax, task in zip(axes, tasks, strict=True):
    bars = ax.barh(
        list(contestants), [errors[task, name] for name in contestants], color=colors
    )
    ax.bar_label(bars, [f"{bar.get_width():.2g}" for bar in bars], padding=3)
    ax.set(title=task.replace(", ", "\n", 1), xlabel="error / deviation of the target")
    ax.margins(x=0.25)
axes[0].invert_yaxis()
plt.show()

for task in tasks:
    ranked = sorted(contestants, key=lambda name: errors[task, name])
    print(f"{task}: " + ", ".join(f"{name} {errors[task, name]:.2g}" for name in ranked))

# %%
# On a smooth function without noise kernels are at home, and so are closed forms:
# `MoERegressor` solved for its last maps and never trained there. Where there are jumps,
# kernels lose what they are good at. Trees cut along features, which is right for a few
# features that mean something, and wrong for a surface that lies askew among twenty.
