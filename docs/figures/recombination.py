"""Errors on combinations of pieces that were seen in training, and on others."""

import matplotlib.pyplot as plt
from measured import OURS, medians

SHORT = {
    "DeepMoERegressor": "DeepMoE\nRegressor",
    "HistGradientBoosting": "Hist\nGradient\nBoosting",
    "dense twin, equal cost": "dense net,\nequal cost",
}

seen = medians("accuracy/goal-3")
unseen = medians("accuracy/goal-3", "nrmse_unseen")

figure, axes = plt.subplots(1, 2, figsize=(6.5, 3.4), sharey=True, layout="constrained")
for ax, task in zip(axes, seen.index, strict=True):
    names = seen.loc[task].dropna().sort_values().index
    for i, name in enumerate(names):
        ours = {"color": OURS.get(name, "0.6")}
        ax.bar(i - 0.2, seen.loc[task, name], 0.38, **ours)
        ax.bar(i + 0.2, unseen.loc[task, name], 0.38, **ours, hatch="//", alpha=0.7)
    ax.set_xticks(range(len(names)), [SHORT.get(name, name) for name in names], fontsize=8)
    ax.set_title(task)
axes[0].bar(0, 0, color="0.6", label="seen cells")
axes[0].bar(0, 0, color="0.6", hatch="//", alpha=0.7, label="unseen cells")
axes[0].set(ylabel="NRMSE, median over seeds")
axes[0].legend()
