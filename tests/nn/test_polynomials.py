"""Stacked polynomials are scikit-learn's, and linear maps in degree one."""

import pytest
import torch
from sklearn.preprocessing import PolynomialFeatures
from torch.testing import assert_close

from skmoe.nn.polynomials import StackedPolynomial
from skmoe.nn.stacked import StackedLinear


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_products_are_those_of_scikit_learn(randn, generator, degree):
    maps = StackedPolynomial(2, 3, 4, degree=degree, generator=generator).double()
    x = randn(2, 50, 3)
    products = PolynomialFeatures(degree, include_bias=False)
    lifted = [torch.from_numpy(products.fit_transform(rows.numpy())) for rows in x]
    assert_close(maps.lift(x), torch.stack(lifted))
    assert_close(maps(x), torch.stack(lifted) @ maps.weight + maps.bias)


def test_the_first_degree_is_a_linear_map(randn):
    polynomial, linear = (
        kind(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
        for kind in (StackedPolynomial, StackedLinear)
    )
    x = randn(2, 50, 3)
    assert torch.equal(polynomial(x), linear(x))
    assert polynomial.state_dict().keys() == linear.state_dict().keys()


def test_of_no_input_there_are_no_products(generator):
    maps = StackedPolynomial(1, 0, 2, degree=2, generator=generator)
    assert maps(torch.zeros(1, 5, 0)).shape == (1, 5, 2)


@pytest.mark.parametrize(("degree", "limit"), [(0, "an int of at least 1"), (6, "at most 5")])
def test_degrees_are_few(degree, limit):
    with pytest.raises(ValueError, match=rf"degree must be {limit}\. Got {degree}"):
        StackedPolynomial(1, 2, 2, degree=degree)
