"""Mixture-of-experts regression behind scikit-learn's fit and predict."""

from skmoe._registry import part
from skmoe._version import __version__

__all__ = ["__version__", "part"]
