"""
A ridge regression that knows the routing
=========================================

What a mixture has learned about *which case a row is* may be of use to another model. Here the
target has the same slope everywhere, and a level of its own in each quarter of the plane. A
ridge regression sees the slope and cannot tell the quarters apart; but it can use the routing
once it is given it.
"""

import numpy as np

random = np.random.default_rng(0)
n = 1500
X = random.uniform(-1, 1, (n, 2))
quarter = 2 * (X[:, 0] > 0) + (X[:, 1] > 0)
level = np.array([0.0, 3.0, -2.0, 1.0])[quarter]
y = level + X[:, 0] - X[:, 1] + 0.1 * random.standard_normal(n)

# %%
# `MoETransformer` fits a mixture and hands on its routing: the weights of the experts
# (``features="gates"``), what they say ("answers"), or both. It is a step of a pipeline like
# any other; with a union, the raw features stay beside it. Experts that are constants leave all
# of the work to the gate.

from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline, make_union

from skmoe import MoERegressor, MoETransformer

moe = MoERegressor(
    6,
    expert="constant",
    gate="mlp",
    init="kmeans",
    solver="adam",
    learning_rate=0.03,
    embedding=None,
    max_epochs=60,
    random_state=0,
)
contestants = {
    "ridge": Ridge(),
    "ridge on the gates": make_pipeline(MoETransformer(moe), Ridge()),
    "ridge on features and gates": make_pipeline(
        make_union("passthrough", MoETransformer(moe)), Ridge()
    ),
    "the mixture itself": moe,
}
folds = KFold(3, shuffle=True, random_state=0)
for name, model in contestants.items():
    scores = cross_val_score(model, X, y, cv=folds)
    print(f"{name}: R^2 {scores.mean():.3f} (folds {scores.min():.3f} to {scores.max():.3f})")

# %%
# Features have names, so that coefficients can be read: each is what the ridge regression adds
# for a row that this expert answers alone.

import matplotlib.pyplot as plt

pipeline = contestants["ridge on the gates"].fit(X, y)
names = pipeline[0].get_feature_names_out()
routing = pipeline[0].transform(X)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
left.bar(names, pipeline[-1].coef_, color=[f"C{k}" for k in range(len(names))])
left.set(title="coefficients of the ridge regression")
right.scatter(*X.T, c=[f"C{k}" for k in routing.argmax(axis=1)], s=6)
right.set(title="the expert with the largest weight", aspect="equal")
plt.show()

# %%
# A mixture that is fitted already can be used as it is, in `FrozenEstimator`: best one that was
# fitted on other rows, as routings of rows that it has learned from are surer than those of new
# ones.

from sklearn.frozen import FrozenEstimator

fitted = moe.fit(X[:750], y[:750])
frozen = make_pipeline(MoETransformer(FrozenEstimator(fitted)), Ridge()).fit(X[750:], y[750:])
print(frozen[0].get_feature_names_out())
