"""Numeric feature embeddings: each feature as several, ``x_TD -> e_TF``.

Contract. An `Embedding` is made from the number of inputs D, with the number of outputs F
in `output_dim`. Its outputs start with x itself. The formulas come from
`rtdl_num_embeddings`, the reference implementation of Gorishniy et al. (2022), "On
Embeddings for Numerical Features in Tabular Deep Learning". It comes in late, as it brings all
of scikit-learn's trees.

To add an embedding, copy the nearest one and name it in `EMBEDDINGS` at the bottom.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from skmoe._registry import Registry
from skmoe._settings import check_integer, check_number
from skmoe.nn.stacked import draw_normal, draw_uniform

N_BINS = 24  # of each feature, unless told otherwise


class Embedding(nn.Module, ABC):
    """From D features to F.

    Attributes
    ----------
    output_dim : int
        Number of outputs F.
    """

    output_dim: int

    @abstractmethod
    def forward(self, x_TD: Tensor) -> Tensor:
        """Embedded features ``e_TF``."""


class NoEmbedding(Embedding):
    """The features as they are."""

    def __init__(self, n_inputs: int):
        super().__init__()
        self.output_dim = n_inputs

    def forward(self, x_TD: Tensor) -> Tensor:
        return x_TD


class PiecewiseLinear(Embedding):
    """Beside each feature, how far it has come through each of its bins, from 0 to 1.

    The outermost bins go on linearly beyond their edges.

    A linear map of these is any function of one feature that is piecewise linear on the
    bins: it lets a net change its mind within a small range of one feature, as trees do.

    Parameters
    ----------
    n_inputs : int
        Number of features D.
    n_bins : int, default=24
        Bins of each feature, at most.
    bins : list of lists of float, optional
        Increasing edges for each feature, in its scaled units; features with fewer than
        two bins get none. Estimators put quantiles of the training data here. By default
        `n_bins` equal bins on [-2, 2].
    """

    feature_F: Tensor
    slope_F: Tensor
    shift_F: Tensor
    lowest_F: Tensor
    highest_F: Tensor

    def __init__(
        self,
        n_inputs: int,
        *,
        n_bins: int = N_BINS,
        bins: Sequence[Sequence[float]] | None = None,
    ):
        super().__init__()
        if bins is None:
            n_edges = check_integer("n_bins", n_bins) + 1
            bins = [torch.linspace(-2, 2, n_edges, device="cpu").tolist()] * n_inputs
        elif len(bins) != n_inputs:
            raise ValueError(
                "bins must be one list of edges for each feature. "
                f"Got {len(bins)} lists and {n_inputs} features."
            )
        self.columns = [i for i, edges in enumerate(bins) if len(edges) > 2]
        self.encoding = None
        self.output_dim = n_inputs
        if self.columns:
            from rtdl_num_embeddings import PiecewiseLinearEncoding

            # On the CPU wherever the network is made: the package looks at the edges.
            with torch.device("cpu"):
                edges = [torch.tensor(bins[i], dtype=torch.float64) for i in self.columns]
                self.encoding = PiecewiseLinearEncoding(edges)
                self.output_dim += self.encoding.get_output_shape()[0]
                self._lay_out(n_inputs, self.encoding.impl)

    def _lay_out(self, n_inputs: int, given: Any) -> None:
        """All outputs as linear functions of a feature, between bounds.

        That is what the package computes, in a quarter to a tenth of its time.
        """
        slopes, shifts = given.weight, given.bias
        lowest, highest = torch.zeros_like(slopes), torch.ones_like(slopes)
        lowest[:, 0], highest[:, -1] = -torch.inf, torch.inf  # the outermost bins go on
        features = torch.tensor(self.columns)[:, None].expand_as(slopes)
        even = torch.ones_like(slopes, dtype=torch.bool)
        used = even if given.mask is None else given.mask
        # The features themselves come first.
        columns = {
            "feature_F": (torch.arange(n_inputs), features),
            "slope_F": (torch.ones(n_inputs), slopes),
            "shift_F": (torch.zeros(n_inputs), shifts),
            "lowest_F": (torch.full((n_inputs,), -torch.inf), lowest),
            "highest_F": (torch.full((n_inputs,), torch.inf), highest),
        }
        for name, (of_features, of_bins) in columns.items():
            self.register_buffer(
                name, torch.cat([of_features, of_bins[used]]), persistent=False
            )

    def forward(self, x_TD: Tensor) -> Tensor:
        if self.encoding is None:
            return x_TD
        x_TF = x_TD.index_select(1, self.feature_F)
        linear_TF = torch.addcmul(self.shift_F, self.slope_F, x_TF)
        # Not in place: that has no rule for networks side by side.
        return linear_TF.clamp(self.lowest_F, self.highest_F)


class Periodic(Embedding):
    """Beside each feature, ``relu(linear([sin(2 pi c x), cos(2 pi c x)]))``, c learned.

    Parameters
    ----------
    n_inputs : int
        Number of features D.
    n_frequencies : int, default=16
        Frequencies c of each feature.
    frequency_scale : float, default=0.1
        Standard deviation of their initial values, for features of unit scale.
    n_outputs : int, default=8
        Outputs of each feature.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    def __init__(
        self,
        n_inputs: int,
        *,
        n_frequencies: int = 16,
        frequency_scale: float = 0.1,
        n_outputs: int = 8,
        generator: Generator | None = None,
    ):
        from rtdl_num_embeddings import PeriodicEmbeddings

        super().__init__()
        check_integer("n_frequencies", n_frequencies)
        check_integer("n_outputs", n_outputs)
        check_number("frequency_scale", frequency_scale, open_=True)
        # On the meta device nothing is drawn; the package knows no generators.
        with torch.device("meta"):
            self.embedding = PeriodicEmbeddings(
                n_inputs, n_outputs, n_frequencies=n_frequencies, lite=False
            )
        frequencies = draw_normal((n_inputs, n_frequencies), frequency_scale, generator)
        self.embedding.periodic.weight = nn.Parameter(frequencies)
        bound = (2 * n_frequencies) ** -0.5
        for name in ("weight", "bias"):
            shape = tuple(getattr(self.embedding.linear, name).shape)
            drawn = nn.Parameter(draw_uniform(shape, bound, generator))
            setattr(self.embedding.linear, name, drawn)
        self.output_dim = n_inputs * (1 + n_outputs)

    def forward(self, x_TD: Tensor) -> Tensor:
        return torch.cat([x_TD, self.embedding(x_TD).flatten(-2)], -1)


EMBEDDINGS = Registry("embedding", {"piecewise_linear": PiecewiseLinear, "periodic": Periodic})
