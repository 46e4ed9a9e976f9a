"""Ours against the best of the others, on each real table."""

import matplotlib.pyplot as plt
from measured import OURS, medians

errors = medians("accuracy/goal-7")
others = errors.drop(columns=list(OURS))
best = others.min(axis=1)

figure, ax = plt.subplots(figsize=(6, 4.6), layout="constrained")
places = range(len(errors))
for name in others:
    ax.scatter(others[name] / best, places, s=18, color="0.7", zorder=1)
for (name, color), marker, size in zip(OURS.items(), "oD", (90, 35), strict=True):
    ratios = errors[name] / best
    ax.scatter(ratios, places, s=size, marker=marker, color=color, label=name, zorder=2)
ax.scatter([], [], s=18, color="0.7", label="others")
ax.axvline(1, color="0.4", lw=1)
best_of = others.idxmin(axis=1).str.replace(" + ridge", "").str.replace("-TD", "")
ax.set_yticks(places, [f"{task}\n(best: {name})" for task, name in best_of.items()])
ax.invert_yaxis()
ax.set(xscale="log", xlabel="error / error of the best of the others")
ticks = (0.5, 1, 2, 5, 10, 20, 50)
ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
ax.minorticks_off()
ax.grid(axis="x", alpha=0.3)
figure.legend(loc="outside upper right", ncols=3)
