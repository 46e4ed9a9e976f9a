"""
Saving, looking into a file, and a file that is refused
=======================================================

A pickle can run anything when it is opened. The files of `save_model` hold arrays and JSON, and
`load_model` runs nothing that is in them.
"""

import tempfile
from pathlib import Path

import numpy as np

from skmoe import MoERegressor, load_model
from skmoe.datasets import load_concrete

X, y = load_concrete(return_X_y=True)
moe = MoERegressor(8, max_epochs=40, random_state=0).fit(X, y)

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "concrete.skmoe"
moe.save_model(path)
again = load_model(path)
print(again)
print("same predictions, to the bit:", np.array_equal(again.predict(X), moe.predict(X)))

# %%
# What is in a file can be told without building a model of it: its class and parameters, the
# versions that wrote it, a digest, and name, type and shape of each array.

from skmoe import inspect_model

info = inspect_model(path)
print(f"{info.estimator}, {info.n_features_in} features, {info.n_bytes:,} bytes")
print("parameters:", {name: info.parameters[name] for name in ("n_experts", "max_epochs")})
print("versions:", info.versions)
print("digest:", info.digest[:16], "...")

# %%
# Where the numbers are: all experts of a layer are one array, for each of their maps.

import matplotlib.pyplot as plt

weights = {
    name.removeprefix("weights."): shape
    for name, (_, shape) in info.arrays.items()
    if name.startswith("weights.")
}
sizes = {name: np.prod(shape) for name, shape in weights.items()}
largest = sorted(sizes, key=sizes.get)[-8:]
figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
bars = ax.barh(largest, [sizes[name] for name in largest])
ax.bar_label(bars, [" x ".join(map(str, weights[name])) for name in largest], padding=4)
ax.set(xlabel="numbers", title="The largest arrays in the file")
ax.margins(x=0.25)
plt.show()

# %%
# One flipped bit, a pickle in its place, a file that ends too early: each is refused, and
# nothing of it is used. There is no other format that would be tried.

import pickle

from skmoe import ModelFileError

whole = path.read_bytes()
flipped = bytearray(whole)
flipped[len(whole) // 2] ^= 1
bad = {"one flipped bit": flipped, "a pickle": pickle.dumps(moe), "its first half": whole[:999]}
for name, data in bad.items():
    path.write_bytes(data)
    try:
        load_model(path)
    except ModelFileError as error:
        print(f"{name}: {error}")
    else:
        raise AssertionError(f"{name} was loaded")
folder.cleanup()

# %%
# What is promised, and what is not: :doc:`/security`. For programs without Python there is
# `export_onnx`: :doc:`/guide/saving`.
