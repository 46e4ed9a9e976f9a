"""The scikit-learn face: parameters in, fitted attributes out."""

from skmoe.estimators.deep import DeepMoERegressor
from skmoe.estimators.shallow import MoERegressor

__all__ = ["DeepMoERegressor", "MoERegressor"]
