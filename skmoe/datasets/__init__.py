"""Data sets: generators whose true structure is known, and two real tables."""

from skmoe.datasets.experiments import make_circle_regression, make_cube_regression
from skmoe.datasets.generators import make_compositional_regression, make_manifold_regression
from skmoe.datasets.iterated import (
    make_iterated_regression,
    make_multiplication_regression,
)
from skmoe.datasets.loaders import load_airfoil, load_concrete

__all__ = [
    "load_airfoil",
    "load_concrete",
    "make_circle_regression",
    "make_compositional_regression",
    "make_cube_regression",
    "make_iterated_regression",
    "make_manifold_regression",
    "make_multiplication_regression",
]
