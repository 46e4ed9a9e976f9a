"""Mixture-of-experts regression behind scikit-learn's fit and predict."""

from skmoe._registry import part
from skmoe._version import __version__
from skmoe.estimators import DeepMoERegressor, MoERegressor
from skmoe.loading import inspect_model, load_model
from skmoe.model_file import ModelFileError

__all__ = [
    "DeepMoERegressor",
    "MoERegressor",
    "ModelFileError",
    "__version__",
    "inspect_model",
    "load_model",
    "part",
]
