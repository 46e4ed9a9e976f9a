"""
Categories and missing values, in a pipeline
============================================

A mixture takes numbers, and refuses missing ones. scikit-learn has what turns a table of real
life into numbers, and a mixture stands at the end of a pipeline like any other estimator.

Three machines follow a law of their own each; a tenth of the sensor values are missing.
"""

import numpy as np
import pandas as pd

random = np.random.default_rng(0)
n = 1500
table = pd.DataFrame(
    {
        "load": random.uniform(0, 1, n),
        "speed": random.uniform(0, 1, n),
        "wear": random.uniform(0, 1, n),
        "machine": random.choice(["drill", "lathe", "mill"], n),
    }
)
wear = table.machine.map({"drill": 2.0, "lathe": -1.0, "mill": 0.0}) * table.wear
laws = {
    "drill": np.sin(6 * table.load),
    "lathe": 2 * table.load * table.speed,
    "mill": np.cos(5 * table.speed) + table.load**2,
}
y = sum(laws[name] * (table.machine == name) for name in laws) + wear
y = y + 0.05 * random.standard_normal(n)
sensors = ["load", "speed", "wear"]
X = table.copy()
X[sensors] = X[sensors].mask(random.uniform(size=(n, 3)) < 0.1)
print(X.head())

# %%
# Missing values are filled in, with a column that says where they were; machines get one
# column each. `HistGradientBoostingRegressor` takes both as they are.

from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skmoe import MoERegressor


def numbers():
    return make_column_transformer(
        (SimpleImputer(add_indicator=True), sensors),
        (OneHotEncoder(sparse_output=False), ["machine"]),
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")


contestants = {
    "mixture": make_pipeline(numbers(), MoERegressor(random_state=0)),
    "trees": HistGradientBoostingRegressor(categorical_features="from_dtype", random_state=0),
    "ridge": make_pipeline(numbers(), RidgeCV()),
}
folds = KFold(3, shuffle=True, random_state=0)
data = X.astype({"machine": "category"})
for name, model in contestants.items():
    scores = cross_val_score(model, data, y, cv=folds)
    print(f"{name}: R^2 {scores.mean():.3f} (folds {scores.min():.3f} to {scores.max():.3f})")

# %%
# In a notebook, a pipeline on the last line of a cell shows its steps, and a mixture what it is
# made of. What is underlined leads to these pages.

# sphinx_gallery_capture_repr_block = ("_repr_html_",)
pipeline = contestants["mixture"].fit(X, y)
pipeline

# %%

# sphinx_gallery_capture_repr_block = ("_repr_html_",)
pipeline[-1]

# %%
# Does each machine have experts of its own? `routing_table` says what share of its rows goes
# where.

import matplotlib.pyplot as plt

from skmoe.inspection import routing_table

names, shares = routing_table(pipeline[-1], pipeline[:-1].transform(X), table.machine)

figure, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
image = ax.imshow(shares, cmap="Blues", vmin=0, aspect="auto")
ax.set_yticks(range(len(names)), names)
ax.set_xticks(range(shares.shape[1]))
ax.set(xlabel="expert", title="mean weight of each expert")
figure.colorbar(image)
plt.show()

# %%
# A column that is dark in one row only is an expert for that machine; one that is grey in all
# rows works for all. Weights are soft by default, so that most experts have a part in each law.
