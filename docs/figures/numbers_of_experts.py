"""Errors over the number of experts, two of them asked."""

import matplotlib.pyplot as plt
from measured import fits

table = fits("accuracy/goal-6")
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
table["estimator"] = table.contestant.str.partition(",")[0]
for (task, estimator), own in table.groupby(["task", "estimator"], sort=False):
    line = own.groupby("n_experts").nrmse.median()
    ax.plot(line.index, line, marker="o", label=f"{task}, {estimator}")
numbers = sorted(table.n_experts.unique())
ax.set(xscale="log", ylim=(0, None), xlabel="experts", ylabel="NRMSE, one to five seeds")
ax.set_xticks(numbers, [f"{number:g}" for number in numbers])
ax.minorticks_off()
ax.grid(alpha=0.3)
ax.legend()
