"""
A gate of your own
==================

A part of a mixture is a name, a name with settings, or a class. So research needs no change
of the package: here is a gate that scores each expert by waves of the inputs.
"""

# %%
# A gate is a `Gate` with a method `score`, from inputs ``x_BTD`` (B blocks side by side, T
# rows, D features) to logits ``x_BTE`` of E experts. Temperature and noise come from the base
# class.

import torch

from skmoe.nn.base_gates import Gate
from skmoe.nn.stacked import StackedLinear


class WaveGate(Gate):
    """``logits = sin(x W + b) V``."""

    def __init__(self, n_blocks, n_inputs, n_experts, *, n_waves=64, generator=None, **shared):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        self.waves = StackedLinear(n_blocks, n_inputs, n_waves, generator=generator, gain=6.0)
        self.mix = StackedLinear(n_blocks, n_waves, n_experts, generator=generator)

    def score(self, x_BTD):
        return self.mix(torch.sin(self.waves(x_BTD)))


# %%
# Regions that alternate, which no linear gate can tell apart: a chessboard.

import numpy as np
from sklearn.model_selection import train_test_split

from skmoe import MoERegressor

random = np.random.default_rng(0)
X = random.uniform(-1, 1, (3000, 2))
field = np.floor(2 * X).sum(axis=1) % 2
y = np.where(field == 0, np.sin(3 * X[:, 0]), 2 + X[:, 1])
X, X_test, y, y_test = train_test_split(X, y, random_state=0)

settings = {
    "n_experts": 2,
    "hidden_dim": 8,
    "embedding": None,
    "solver": "adam",
    "learning_rate": 0.01,
    "max_epochs": 60,
}
models = {}
for name, gate in (("linear", "linear"), ("mlp", "mlp"), ("waves", WaveGate)):
    models[name] = MoERegressor(gate=gate, **settings, random_state=0).fit(X, y)
    print(f"gate {name}: R^2 {models[name].score(X_test, y_test):.3f}")

# %%
# Who answers where, on a grid: at the left the two kinds of fields, and beside them the two
# experts of each mixture.

import matplotlib.pyplot as plt

side = np.linspace(-1, 1, 120)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
panels = {"the truth": np.floor(2 * grid).sum(axis=1) % 2}
for name, model in models.items():
    panels[f"gate {name}: $R^2$ {model.score(X_test, y_test):.2f}"] = model.apply(grid)
figure, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
for ax, (title, ids) in zip(axes, panels.items(), strict=True):
    image = ids.reshape(120, 120)
    ax.imshow(image, extent=(-1, 1, -1, 1), origin="lower", cmap="tab10", vmin=0, vmax=9)
    ax.set(title=title, xticks=(-1, 0, 1), yticks=(-1, 0, 1), xlabel="$x_1$", ylabel="$x_2$")
plt.show()

# %%
# For a part with settings, and for one that others should find by its name, see
# :doc:`/extend`.
