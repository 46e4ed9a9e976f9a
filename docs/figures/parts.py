"""What each part does to the error, over that of the default."""

import matplotlib.pyplot as plt
import numpy as np
from measured import fits

errors = fits("parts").pivot(index=["task", "seed"], columns="contestant", values="nrmse")
ratios = errors.div(errors["default"], axis=0).drop(columns="default")
ratios = ratios.groupby("task", sort=False).median()
mean = np.exp(np.log(ratios).mean()).sort_values(ascending=False)

figure, ax = plt.subplots(figsize=(6.5, 9), layout="constrained")
for task, row in ratios.iterrows():
    ax.scatter(row[mean.index], range(len(mean)), s=14, alpha=0.8, label=task)
ax.scatter(mean, range(len(mean)), marker="|", s=120, color="black", label="geometric mean")
ax.axvline(1, color="0.4", lw=1)
ax.set_yticks(range(len(mean)), mean.index, fontsize=8)
ax.set(xscale="log", xlabel="error / that of the default; left of 1 the part helps")
ticks = (0.6, 0.8, 1, 1.25, 1.5, 2, 3)
ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
ax.minorticks_off()
ax.grid(axis="x", alpha=0.3)
ax.legend(fontsize=8, loc="upper right")
