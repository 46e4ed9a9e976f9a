"""
What each layer knows
=====================

Two functions are applied one after the other, ``y = f_2(f_1(x))``, each with three pieces. A
stack of layers is fitted to x and y alone. Linear probes on the state after each layer tell
what it knows by then: the value in between, the piece of each step, the result.
"""

from skmoe import DeepMoERegressor
from skmoe.datasets import make_iterated_regression

task = {"n_steps": 2, "n_regions": 3, "return_X_y": False, "task_random_state": 0}
rows = make_iterated_regression(2000, **task, random_state=1)
test = make_iterated_regression(1000, **task, random_state=2)
moe = DeepMoERegressor(
    n_layers=4,
    n_experts=4,
    arrangement="stack",
    auxiliary_losses={"switch": 0.1},  # keeps all experts busy
    max_epochs=40,
    random_state=0,
).fit(rows.data, rows.target)
print(f"R^2 on new rows: {moe.score(test.data, test.target):.3f}")

# %%
# Columns of floats are probed by ridge regression, columns of integers, here the true pieces,
# by logistic regression. The first score is that of the features themselves.

import pandas as pd

from skmoe.inspection import concept_depth, layer_probe

numbers = pd.DataFrame({"value in between": test.latent[:, 1], "result": test.target})
pieces = pd.DataFrame({"first piece": test.regions[:, 0], "second piece": test.regions[:, 1]})
concepts = pd.concat([numbers, pieces], axis=1)
scores = layer_probe(moe, test.data, concepts)
print(pd.DataFrame(scores, columns=concepts.columns).rename_axis("layer").round(3))
for name, depth in zip(concepts, concept_depth(scores), strict=True):
    print(f"{name}: known from layer {depth} on")

# %%
# Scores of numbers are R^2, those of pieces are shares of right answers; a filled marker is
# at the first layer that knows a concept nearly as well as any.

import matplotlib.pyplot as plt

from skmoe.plotting import LayerProbeDisplay

LayerProbeDisplay(scores, list(concepts)).plot()
plt.show()

# %%
# The first piece is known from the features, of which it is an interval. If the result is known
# no later than the value in between, the stack did not take the steps one after the other: one
# layer of experts has learned all nine pieces at once.
#
# Which way do the rows take? Each node is an expert, as high as its share of the rows.

from skmoe.plotting import RoutingFlowDisplay

RoutingFlowDisplay.from_estimator(moe, test.data)
plt.show()
