"""Errors on the torus over the number of rows, and of features."""

import matplotlib.pyplot as plt
from measured import fits

COLORS = {
    "MoERegressor": "C0",
    "MoERegressor, solver ridge": "C9",
    "HistGradientBoosting": "C1",
    "LightGBM": "C3",
    "KNeighbors": "0.5",
}

table = fits("accuracy/goal-4")
table = table[table.task.str.startswith("torus, pieces")]
figure, axes = plt.subplots(1, 2, figsize=(7, 3.8), sharey=True, layout="constrained")
cuts = (
    ("n_train", table[table.D == 50], "rows, of 50 features"),
    ("D", table[table.n_train == 10_000], "features, of 10,000 rows"),
)
for ax, (over, rows, label) in zip(axes, cuts, strict=True):
    for name, color in COLORS.items():
        line = rows[rows.contestant == name].groupby(over).nrmse.median()
        ax.plot(line.index, line, marker="o", color=color, label=name)
    sizes = sorted(rows[over].unique())
    ax.set(xscale="log", yscale="log", xlabel=label)
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    ax.grid(alpha=0.3)
axes[0].set(ylabel="NRMSE, median over seeds")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
