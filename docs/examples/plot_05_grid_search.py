"""
How many experts, how many layers: a grid search
================================================

A mixture is an estimator of scikit-learn, so that its searches work as they are. Here is a
target of two factors of two coordinates, with three regions each, and a grid of experts and
layers.
"""

# %%
# Four numbers of experts, three of layers, three folds: 36 fits. So that the numbers matter,
# blocks see two directions each and are combined by a linear map, and there is no trunk
# beside them: with the default parts, more is done by the net that combines the blocks, and
# the map is nearly flat. ``max_epochs`` keeps the fits short.

import time

from sklearn.model_selection import GridSearchCV

from skmoe import DeepMoERegressor, part
from skmoe.datasets import make_compositional_regression

X, y = make_compositional_regression(1000, n_blocks=2, n_regions=3, random_state=0)
search = GridSearchCV(
    DeepMoERegressor(
        arrangement=part("parallel", trunk=False, n_dense=0),
        expert=part("latent", latent_dim=2),
        hidden_dim=8,
        embedding=None,
        solver="adam",
        learning_rate=0.02,
        batch_size=128,
        max_epochs=40,
        random_state=0,
    ),
    {"n_experts": [1, 2, 4, 8], "n_layers": [1, 2, 4]},
    cv=3,
)
start = time.perf_counter()
search.fit(X, y)
print(
    f"{len(search.cv_results_['params']) * 3} fits in {time.perf_counter() - start:.0f} seconds"
)
print(f"best: {search.best_params_}, R^2 {search.best_score_:.3f}")

# %%
# The results as a map. Differences between neighbours are to be read against the spread over
# the folds, the second number in each cell. One block sees one plane, which is not enough for
# two factors, however many experts it has.

import matplotlib.pyplot as plt
import numpy as np

found = search.cv_results_
experts, layers = (search.param_grid[name] for name in ("n_experts", "n_layers"))
means = np.reshape(found["mean_test_score"], (len(experts), len(layers)))
spreads = np.reshape(found["std_test_score"], means.shape)

figure, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
image = ax.imshow(means, cmap="viridis", aspect="auto")
for (i, j), mean in np.ndenumerate(means):
    color = "black" if mean > (means.min() + means.max()) / 2 else "white"
    text = f"{mean:.3f}\n± {spreads[i, j]:.3f}"
    ax.text(j, i, text, ha="center", va="center", color=color)
ax.set_xticks(range(len(layers)), layers)
ax.set_yticks(range(len(experts)), experts)
ax.set(xlabel="layers", ylabel="experts in each", title="R^2 on the rows left out")
figure.colorbar(image)
plt.show()

# %%
# No grid at hand? `skmoe.search.search_space` gives one that fits the data.

from skmoe.search import search_space

for name, values in search_space(DeepMoERegressor(), *X.shape).items():
    print(name, values)
