"""Mixture-of-experts regression behind scikit-learn's fit and predict."""

import skmoe._fork  # noqa: F401  (children of this process)
from skmoe._registry import part
from skmoe._version import __version__
from skmoe.estimators import DeepMoERegressor, MoERegressor
from skmoe.loading import ModelInfo, inspect_model, load_model
from skmoe.model_file import ModelFileError
from skmoe.transformer import MoETransformer

__all__ = [
    "DeepMoERegressor",
    "MoERegressor",
    "MoETransformer",
    "ModelFileError",
    "ModelInfo",
    "__version__",
    "inspect_model",
    "load_model",
    "part",
]
