"""Maps that are polynomials of their input, side by side: `StackedPolynomial`."""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Generator, Tensor

from skmoe._settings import check_integer
from skmoe.nn.stacked import StackedLinear

# There are hardly any rows for what higher degrees could tell.
MAX_DEGREE = 5


class StackedPolynomial(StackedLinear):
    """N polynomials at once: affine in all products of up to `degree` inputs.

    Parameters
    ----------
    n_maps, n_inputs, n_outputs, generator
        As of `StackedLinear`.
    degree : int, default=1
        Largest number of factors, at most 5. With 1 this is a `StackedLinear`.

    Examples
    --------
    >>> import torch
    >>> StackedPolynomial(1, 2, 1, degree=2).lift(torch.tensor([2.0, 3.0]))
    tensor([2., 3., 4., 6., 9.])
    """

    def __init__(
        self,
        n_maps: int,
        n_inputs: int,
        n_outputs: int,
        *,
        degree: int = 1,
        generator: Generator | None = None,
    ):
        degree = check_integer("degree", degree)
        if degree > MAX_DEGREE:
            raise ValueError(f"degree must be at most {MAX_DEGREE}. Got {degree}.")
        n_products = math.comb(n_inputs + degree, degree) - 1
        super().__init__(n_maps, n_products, n_outputs, generator=generator)
        self.degree = degree

    def lift(self, x: Tensor) -> Tensor:
        """The inputs, then their products, in the order of scikit-learn's polynomials."""
        n_inputs = x.shape[-1]
        products = [x]
        firsts: Sequence[int] = range(n_inputs)
        for _ in range(1, self.degree):
            # Each input by the products of those from it on, which are the last ones.
            new = [x[..., i : i + 1] * products[-1][..., firsts[i] :] for i in range(n_inputs)]
            firsts = [0, *accumulate(block.shape[-1] for block in new)]
            products.append(torch.cat(new, -1) if new else x)
        return torch.cat(products, -1) if len(products) > 1 else x

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.lift(x))
