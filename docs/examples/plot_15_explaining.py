"""
Why this prediction?
====================

One layer of experts is a sum, so that what each expert adds to a prediction needs no
approximation: its weight times its answer, in the units of the target. Here the strength of
concrete, in MPa, from its mixture and age.
"""

from sklearn.model_selection import train_test_split

from skmoe import MoERegressor
from skmoe.datasets import load_concrete

data = load_concrete(as_frame=True)
X, y = data.data + data.feature_means, data.target + data.target_mean
X, X_test, y, y_test = train_test_split(X, y, random_state=0)
moe = MoERegressor(
    4, expert="linear", init="kmeans", solver="adam", max_epochs=100, random_state=0
).fit(X, y)
print(f"R^2 on new rows: {moe.score(X_test, y_test):.3f}")

# %%
# The table has a line for each expert that a row asks; rows are named as in the data frame. The
# contributions of a row add up to its prediction.

import numpy as np

from skmoe.inspection import explain

some = X_test.iloc[:2]
frame = explain(moe, some).to_frame()
print(frame.round(3).to_string(index=False))
sums = frame.groupby("row", sort=False)["contribution"].sum()
print("largest gap to the prediction:", np.abs(sums - moe.predict(some)).max().round(6))

# %%
# So much for single rows. What has each expert learned? Its answer along a feature, as in a
# partial dependence plot, and thick where it is asked.

import matplotlib.pyplot as plt

from skmoe.plotting import ErrorByRegionDisplay, ExpertResponseDisplay

figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
for ax, feature in zip(axes, ("age", "cement"), strict=True):
    ExpertResponseDisplay.from_estimator(moe, X, feature, target_name="strength [MPa]", ax=ax)
plt.show()

# %%
# And where are the errors? Of the rows that each expert answers, or of regions of one's own:
# here young and old concrete.

days = X_test["age"]
ages = np.select([days < 14, days <= 28], ["0-13 days", "14-28 days"], "29 days and more")
figure, axes = plt.subplots(2, 1, figsize=(8, 6), layout="constrained")
for ax, regions, label in zip(axes, (None, ages), ("expert", "age"), strict=True):
    ErrorByRegionDisplay.from_estimator(
        moe, X_test, y_test, regions, region_label=label, target_name="strength [MPa]", ax=ax
    )
plt.show()

# %%
# Layers of a deep mixture are told of as a whole, as their experts speak in hidden units:
# :doc:`/guide/explaining`.
