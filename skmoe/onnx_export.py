"""A fitted model as an ONNX graph, from the user's X to the user's y.

The graph scales X, evaluates the network and undoes the scaling of y, all as `predict` does,
for any number of rows. Every expert is evaluated for every row: which rows ask which experts is
not known when the graph is made.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skmoe._optional import import_optional
from skmoe.model import FittedModel
from skmoe.nn.gates import HashGate
from skmoe.scaling import LINEAR_RANGE

INPUT, OUTPUT, ROWS = "X", "y", "n_samples"


class Prediction(nn.Module):
    """``X -> y`` in the user's units, in float64 but for the network inside."""

    def __init__(self, model: FittedModel) -> None:
        super().__init__()
        x, y = model.x_scaling, model.y_scaling
        # As in `Scaling.apply_softly`: constant columns are dropped, all but one of them.
        columns = np.flatnonzero(x.scale) if x.scale.any() else np.array([0])
        scale = x.scale[columns]
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        self.columns: Tensor
        self.center: Tensor
        self.inverse: Tensor
        self.y_center: Tensor
        self.y_scale: Tensor
        self.register_buffer("columns", torch.from_numpy(columns))
        self.register_buffer("center", torch.from_numpy(x.center[columns]))
        self.register_buffer("inverse", torch.from_numpy(inverse))
        self.register_buffer("y_center", torch.from_numpy(y.center))
        self.register_buffer("y_scale", torch.from_numpy(y.scale))
        self.net, self.dtype, self.n_targets = model.net, model.dtype, model.n_targets

    def forward(self, X: Tensor) -> Tensor:
        z = (X[:, self.columns] - self.center) * self.inverse
        excess = z.abs() - LINEAR_RANGE
        far = z.sign() * (LINEAR_RANGE + torch.log1p(excess.clamp_min(0.0)))
        y, _ = self.net(torch.where(excess > 0, far, z).to(self.dtype))
        return self.y_center + self.y_scale * y[:, : self.n_targets].double()


def onnx_bytes(model: FittedModel) -> bytes:
    """The graph, serialised.

    Raises
    ------
    ValueError
        If a part of the model cannot be told in ONNX.
    ImportError
        If the packages of the extra `onnx` are missing.
    """
    import_optional("onnx", "export_onnx needs onnx", "onnx")
    import_optional("onnxscript", "export_onnx needs onnxscript", "onnx")
    if any(isinstance(module, HashGate) for module in model.net.modules()):
        raise ValueError(
            "gate='hash', which is that of router='hash', cannot be exported: it counts on "
            "integers that overflow, and ONNX says nothing of those."
        )
    # On the CPU and as a copy of its own, whatever device the model is on.
    copied = FittedModel.from_arrays(model.to_arrays())
    example = torch.zeros(3, len(model.x_scaling.center), dtype=torch.float64)
    with _silently():
        try:
            program: Any = torch.onnx.export(
                Prediction(copied).eval(),
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim(ROWS)},),
                verbose=False,
            )
        except Exception as error:  # whatever torch has to say of operations that ONNX lacks
            raise ValueError(f"{_names(model)} cannot be exported: {error}") from error
    return program.model_proto.SerializeToString()


def _names(model: FittedModel) -> str:
    """Gate, router, expert and embedding, one of which must be the reason."""
    arguments = model.architecture.arguments
    arguments = arguments.get("base_arguments", arguments)
    parts = ("gate", "router", "expert", "embedding")
    return ", ".join(f"{part}={arguments.get(part)!r:.80}" for part in parts)


@contextmanager
def _silently() -> Iterator[None]:
    """Keep what the exporter says about packages that it does not need to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
