"""
Which features matter?
======================

What explains any model explains a mixture: scikit-learn's permutation importance and partial
dependence, and SHAP values. They tell of features, where :func:`skmoe.inspection.explain` tells
of experts. Here again the strength of concrete.
"""

from sklearn.model_selection import train_test_split

from skmoe import MoERegressor
from skmoe.datasets import load_concrete

data = load_concrete(as_frame=True)
X, y = data.data + data.feature_means, data.target + data.target_mean
X, X_test, y, y_test = train_test_split(X, y, random_state=0)
moe = MoERegressor(4, solver="adam", max_epochs=60, random_state=0).fit(X, y)
print(f"R^2 on new rows: {moe.score(X_test, y_test):.3f}")

# %%
# How much worse is the model when a feature is shuffled, so that it tells nothing about its
# row? The bars are means of ten shuffles on new rows, the lines two standard deviations.

import matplotlib.pyplot as plt
from sklearn.inspection import PartialDependenceDisplay, permutation_importance

found = permutation_importance(moe, X_test, y_test, n_repeats=10, random_state=0)
order = found.importances_mean.argsort()
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.barh(X.columns[order], found.importances_mean[order], xerr=2 * found.importances_std[order])
ax.set(xlabel="loss of R^2 when the feature is shuffled", title="Permutation importance")
plt.show()

# %%
# And how does the prediction change with a feature? Thin lines are single rows, all else of
# them held; the dashed line is their mean.

features = [str(name) for name in X.columns[order][:-4:-1]]
figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharey=True)
PartialDependenceDisplay.from_estimator(
    moe,
    X_test,
    features,
    kind="both",
    subsample=40,
    grid_resolution=40,
    random_state=0,
    ax=axes,
    ice_lines_kw={"color": "C0", "alpha": 0.3},
    pd_line_kw={"color": "C1", "linewidth": 3},
)
for ax in axes[1:]:
    ax.set(ylabel="")
axes[0].set(ylabel="strength [MPa]")
plt.show()

# %%
# SHAP's explainer for any model shares a single prediction out among the features: what each
# adds to the mean prediction over some rows that stand for the data. It asks for nothing but
# `predict`.

import shap

background = shap.sample(X, 20, random_state=0)
some = X_test.iloc[:60]
explainer = shap.KernelExplainer(moe.predict, background)
values = explainer.shap_values(some, silent=True)
sums = explainer.expected_value + values.sum(axis=1)
print(f"largest gap to the predictions: {abs(sums - moe.predict(some)).max():.1e} MPa")

figure, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
explanation = shap.Explanation(values, data=some.to_numpy(), feature_names=list(X.columns))
shap.plots.beeswarm(explanation, ax=ax, plot_size=None, show=False)
ax.set(xlabel="SHAP value: what the feature adds [MPa]", title="60 predictions, shared out")
plt.show()

# %%
# Each dot is a row. Much cement adds strength and little takes it away; the first days take
# away most. Which expert says so: :doc:`/gallery/plot_15_explaining`.
