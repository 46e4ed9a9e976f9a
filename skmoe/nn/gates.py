"""Gates: learned scores of the experts, ``x -> logits``.

Contract. A gate is a `Gate` (`base_gates`) with a method `score`, from ``x_BTD`` to
``logits_BTE``, for B blocks side by side. All that is learned or scheduled about choosing lives
here: the base class divides by a temperature and adds noise while training. Turning logits into
weights is the business of a router, which has no weights.

To add a gate, copy the nearest one and name it in `GATES` at the bottom. Two that are told
their regions have files of their own, `region_gates` and `patches`.
"""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from skmoe._registry import Registry
from skmoe._settings import check_integer, check_number
from skmoe.nn.base_gates import Gate
from skmoe.nn.patches import PatchGate
from skmoe.nn.region_gates import RegionGate
from skmoe.nn.stacked import (
    ACTIVATIONS,
    StackedLinear,
    StackedResidual,
    draw_normal,
    draw_uniform,
)

# An odd number whose bits are about evenly zeros and ones, to mix those of a hash.
MIXER = 0x94D049BB133111EB - 2**64


class LinearGate(Gate):
    """``logits = x W + b``; its regions are the cells of a power diagram.

    The gate of Wang & E (2025), section 3, with a bias: only with it can two regions meet
    away from the origin.

    Parameters
    ----------
    gain : float, default=1.0
        Scale of the initial weights; with 0 all experts have the same score at first.

    Examples
    --------
    >>> import torch
    >>> gate = LinearGate(1, n_inputs=1, n_experts=3)
    >>> gate.load_state_dict({  # e x - e (e - 1) / 2: largest on [e - 1, e]
    ...     **gate.state_dict(),
    ...     "linear.weight": torch.tensor([[[1.0, 2.0, 3.0]]]),
    ...     "linear.bias": torch.tensor([[[0.0, -1.0, -3.0]]]),
    ... })
    <All keys matched successfully>
    >>> gate(torch.tensor([[[0.5], [1.5], [2.5]]])).argmax(-1)
    tensor([[0, 1, 2]])
    """

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        gain: float = 1.0,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        gain = check_number("gain", gain)
        self.linear = StackedLinear(
            n_blocks, n_inputs, n_experts, generator=generator, gain=gain
        )

    @torch.no_grad()
    def place(self, centers_BED: Tensor, sharpness_B: Tensor) -> bool:
        slopes_BED = 2 * sharpness_B[:, None, None] * centers_BED
        placed = slice(centers_BED.shape[1])
        self.linear.weight[..., placed] = slopes_BED.mT
        self.linear.bias[..., placed] = -(slopes_BED * centers_BED).sum(-1).unsqueeze(1) / 2
        return True

    def score(self, x_BTD: Tensor) -> Tensor:
        return self.linear(x_BTD)


class MLPGate(Gate):
    """A two-layer net, so that regions may have any shape.

    Wang & E (2025), section 6: a nonlinear gate halves the depth that the theorems need.

    Parameters
    ----------
    hidden_dim : int, default=32
        Width of the hidden layer.
    activation : {"relu", "gelu", "silu", "tanh"}, default="relu"
        Its nonlinearity.

    Examples
    --------
    >>> from skmoe import MoERegressor, part
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, gate=part("mlp", hidden_dim=16), random_state=0).fit(X, y)
    >>> moe.predict_gates(X).shape
    (200, 4)
    """

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        hidden_dim: int = 32,
        activation: str = "relu",
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        check_integer("hidden_dim", hidden_dim)
        self.hidden = StackedLinear(n_blocks, n_inputs, hidden_dim, generator=generator)
        self.linear = StackedLinear(n_blocks, hidden_dim, n_experts, generator=generator)
        self.activation = ACTIVATIONS[activation]

    def score(self, x_BTD: Tensor) -> Tensor:
        return self.linear(self.activation(self.hidden(x_BTD)))


class DeepGate(Gate):
    """A residual net, so that borders between regions can be found precisely.

    Most of the error that a mixture makes on a function with jumps is made at the borders,
    by a gate that misplaces them or is too soft there. Cross-entropy is not needed to learn
    a sharp gate, but a net that can place borders of any shape is, and scores that are not
    nearly equal at the start.

    Parameters
    ----------
    width : int, default=48
        Width of the net.
    depth : int, default=2
        Residual layers.
    scale : float, default=3.0
        Factor of the scores: with 1, all experts would weigh about the same at first.

    Examples
    --------
    >>> import torch
    >>> DeepGate(2, n_inputs=3, n_experts=4, depth=1)(torch.zeros(2, 5, 3)).shape  # two blocks
    torch.Size([2, 5, 4])
    """

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        width: int = 48,
        depth: int = 2,
        scale: float = 3.0,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        check_integer("width", width)
        # Gain 2: borders closer to each other than the spread of the inputs.
        self.first = StackedLinear(n_blocks, n_inputs, width, generator=generator, gain=2.0)
        self.layers = nn.Sequential(
            *(
                StackedResidual(n_blocks, width, generator=generator)
                for _ in range(check_integer("depth", depth))
            )
        )
        self.linear = StackedLinear(n_blocks, width, n_experts, generator=generator)
        self.scale = check_number("scale", scale, open_=True)

    def score(self, x_BTD: Tensor) -> Tensor:
        h_BTW = nn.functional.silu(self.first(x_BTD))
        return self.scale * self.linear(self.layers(h_BTW))


class PrototypeGate(Gate):
    """Each expert has a centre c: ``logit = b (2 c.x - |c|^2)`` (Xu, Jordan & Hinton, 1995).

    Up to a term that all experts share, this is ``-b |x - c|^2``: the regions are the
    Voronoi cells of the centres. The sharpness b > 0 is learned, one for each block.

    Examples
    --------
    >>> import torch
    >>> gate = PrototypeGate(1, n_inputs=2, n_experts=2)
    >>> gate.place(torch.tensor([[[0.0, 0.0], [4.0, 0.0]]]), sharpness_B=torch.ones(1))
    True
    >>> gate(torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])).argmax(-1)  # the nearest centre
    tensor([[0, 1]])
    """

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        self.centers = nn.Parameter(
            draw_normal((n_blocks, n_experts, n_inputs), 1.0, generator)
        )
        self.log_sharpness = nn.Parameter(torch.zeros(n_blocks, 1, 1))

    @torch.no_grad()
    def place(self, centers_BED: Tensor, sharpness_B: Tensor) -> bool:
        self.centers[:, : centers_BED.shape[1]] = centers_BED
        self.log_sharpness.copy_(sharpness_B.log()[:, None, None])
        return True

    def score(self, x_BTD: Tensor) -> Tensor:
        norms_B1E = self.centers.square().sum(-1).unsqueeze(1)
        distances_BTE = torch.baddbmm(norms_B1E, x_BTD, self.centers.mT, beta=-1, alpha=2)
        return self.log_sharpness.exp() * distances_BTE


class CosineGate(Gate):
    """Scaled cosine of the angle between input and expert (Nguyen et al., 2024).

    Parameters
    ----------
    scale : float, default=4.0
        Initial factor before the cosine; it is learned.

    Examples
    --------
    >>> import torch
    >>> gate = CosineGate(1, n_inputs=3, n_experts=4)
    >>> x_BTD = torch.ones(1, 1, 3)
    >>> torch.allclose(gate(x_BTD), gate(7 * x_BTD), atol=1e-5)  # lengths do not matter
    True
    """

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        scale: float = 4.0,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        self.directions = nn.Parameter(
            draw_normal((n_blocks, n_experts, n_inputs), 1.0, generator)
        )
        scale = check_number("scale", scale, open_=True)
        self.log_scale = nn.Parameter(torch.full((n_blocks, 1, 1), scale).log())

    def score(self, x_BTD: Tensor) -> Tensor:
        # The smoothing keeps the gradient finite at x = 0, where no angle exists.
        x_BTD = x_BTD * torch.rsqrt(x_BTD.square().sum(-1, keepdim=True) + 1e-6)
        directions = nn.functional.normalize(self.directions, dim=-1)
        return self.log_scale.exp() * torch.bmm(x_BTD, directions.mT)


class QuadraticGate(Gate):
    """``logits = x W + b + sum_r (x u_r)(x v_r)``, curved regions (Akbarian et al., 2024).

    Parameters
    ----------
    rank : int, default=4
        Rank of each expert's quadratic form; at least D gives every quadratic form.

    Examples
    --------
    >>> import torch
    >>> gate = QuadraticGate(1, n_inputs=3, n_experts=4, rank=2)
    >>> sum(weight.numel() for weight in gate.parameters())  # E (D + 1 + 2 rank D)
    64
    """

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        rank: int = 4,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        self.linear = StackedLinear(n_blocks, n_inputs, n_experts, generator=generator)
        rank = check_integer("rank", rank)
        shape, bound = (n_blocks, n_inputs, n_experts * rank), n_inputs**-0.5
        self.left = nn.Parameter(draw_uniform(shape, bound, generator))
        self.right = nn.Parameter(draw_uniform(shape, bound, generator))

    def score(self, x_BTD: Tensor) -> Tensor:
        products = torch.bmm(x_BTD, self.left) * torch.bmm(x_BTD, self.right)
        quadratic_BTE = products.unflatten(-1, (self.shape[2], -1)).sum(-1)
        return self.linear(x_BTD) + quadratic_BTE


class HashGate(Gate):
    """Pseudo-random scores of the cell in which a row lies; nothing is learned.

    Cells are those of a locality-sensitive hash (Datar et al., 2004): ``floor((a.x + b) / w)``
    for a few random directions a. So rows that are near mostly share an expert, and cells that
    are next to each other mostly do not. It looks at inputs before any encoder.

    Parameters
    ----------
    n_projections : int, default=4
        Number of directions.
    width : float, default=2.0
        Width w of a cell along each of them, in standard deviations of the features.

    Examples
    --------
    >>> import torch
    >>> gate = HashGate(1, 3, 4, generator=torch.Generator().manual_seed(0))
    >>> x_BTD = torch.zeros(1, 2, 3)
    >>> bool((gate(x_BTD) == gate(x_BTD + 1e-6)).all())
    True
    """

    before_encoder = True

    def __init__(
        self,
        n_blocks: int,
        n_inputs: int,
        n_experts: int,
        *,
        n_projections: int = 4,
        width: float = 2.0,
        generator: Generator | None = None,
        **shared: Any,
    ):
        super().__init__(n_blocks, n_inputs, n_experts, generator=generator, **shared)
        n_projections = check_integer("n_projections", n_projections)
        self.width = check_number("width", width, open_=True)
        directions = draw_normal((n_blocks, n_inputs, n_projections), 1.0, generator)
        self.directions_BDP: Tensor
        self.offsets_B1P: Tensor
        self.keys_B1SP: Tensor
        self.register_buffer("directions_BDP", nn.functional.normalize(directions, dim=1))
        offsets = torch.rand((n_blocks, 1, n_projections), generator=generator)
        self.register_buffer("offsets_B1P", offsets * self.width)
        keys = torch.randint(
            2**62, (n_blocks, 1, n_experts, n_projections), generator=generator
        )
        self.register_buffer("keys_B1SP", 2 * keys + 1)

    def score(self, x_BTD: Tensor) -> Tensor:
        places_BTP = torch.baddbmm(self.offsets_B1P, x_BTD, self.directions_BDP) / self.width
        cells_BT1P = places_BTP.floor().long().unsqueeze(-2)
        bits_BTS = (cells_BT1P * self.keys_B1SP).sum(-1)
        for shift in (30, 27, 31):  # each bit now depends on all (xorshift, Marsaglia, 2003)
            bits_BTS = (bits_BTS ^ (bits_BTS >> shift)) * MIXER
        return (bits_BTS >> 40).to(x_BTD.dtype) / 2**23  # the 24 highest bits, exact in float32


GATES = Registry(
    "gate",
    {
        "linear": LinearGate,
        "region": RegionGate,
        "patch": PatchGate,
        "mlp": MLPGate,
        "deep": DeepGate,
        "prototype": PrototypeGate,
        "cosine": CosineGate,
        "quadratic": QuadraticGate,
        "hash": HashGate,
    },
)
