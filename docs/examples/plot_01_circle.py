"""
Regions on a circle
===================

The first experiment of Wang & E (2025): the function ``sin(5 x_1) + cos(3 x_2)`` on the unit
circle, which lies among 16 features. Four experts with a linear gate are enough, as a linear
gate cuts a circle into arcs, and on an arc the function is simple.
"""

# %%
# The gate's temperature falls while it learns, so that at the end nearly every row has an
# expert of its own. ``solver="adam"`` asks for training: by default a smooth target like this
# one is solved in closed form.

from skmoe import MoERegressor, part
from skmoe.datasets import make_circle_regression

circle = make_circle_regression(500, return_X_y=False, random_state=0)
moe = MoERegressor(
    n_experts=4,
    gate=part("linear", temperature=(1.0, 0.1)),
    hidden_dim=32,
    embedding=None,
    init="kmeans",
    solver="adam",
    learning_rate=0.02,
    max_epochs=500,
    random_state=0,
).fit(circle.data, circle.target)

test = make_circle_regression(2000, return_X_y=False, random_state=1, task_random_state=0)
print(f"R^2 on {len(test.target)} new rows: {moe.score(test.data, test.target):.5f}")
print("share of the work of each expert:", moe.expert_usage_.round(2))

# %%
# On the left each row has the colour of the expert with the largest weight. On the right each
# expert's own answer is drawn over the angle: strong where the expert has the largest weight,
# pale where it is hardly asked. Far from its arc an expert may say anything.

import matplotlib.pyplot as plt
import numpy as np

order = test.latent[:, 0].argsort()
angle = np.degrees(test.latent[order, 0])
expert = moe.apply(test.data[order])
answers = moe.predict_experts(test.data[order])

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for e in range(4):
    color, own = f"C{e}", expert == e
    left.scatter(*test.data[order][own, :2].T, s=6, color=color, label=f"expert {e}")
    right.plot(angle, answers[:, e], color=color, lw=1, alpha=0.35)
    right.plot(angle, np.where(own, answers[:, e], np.nan), color=color, lw=3)
right.plot(angle, test.target[order], "k:", lw=1.2, label="target")
left.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", title="who answers")
left.legend(loc="center", frameon=False)
low, high = test.target.min(), test.target.max()
right.set(xlabel="angle, degrees", title="what each expert says", ylim=(low - 1, high + 1))
right.legend()
plt.show()
