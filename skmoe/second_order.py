"""The second-order finish: L-BFGS on all weights, from where gradient descent ended.

Gradient descent with small batches stops at the noise of its batches; on data without much
noise of their own, the best weights are far below that. L-BFGS on a fixed set of rows has no
such floor: it minimises

    F(v) = sum_t w_t loss(f_v(x_t), y_t) / sum_t w_t + weight_decay / 2 |maps of v|^2

over all weights v together, in float64, with the curvature seen in the last steps. It fits
whatever it is given, noise included: use it where targets are nearly free of noise or rows
are many, or with validation rows to end it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from skmoe.batches import Batches, Rows
from skmoe.nn.base import Network
from skmoe.nn.losses import FitLoss
from skmoe.optimizer import decays, flatten

# Activations of so many rows stay in a CPU's cache.
CPU_CHUNK = 2048
CUDA_CHUNK = 65536
# Pairs of steps and gradients that L-BFGS remembers. Kinks make the curvature intricate: 200
# pairs reached with 400 iterations what 20 did not reach with 1,000, at the same time per
# iteration.
MEMORY = 200
# An iteration that gains less than this share of the first objective ends the search.
TOLERANCE = 1e-10
# Iterations between two looks at the validation rows, and looks without a better one.
ITERATIONS_PER_LOOK = 10
PATIENCE = 10


@dataclass(frozen=True)
class Polish:
    """What a finish did. Losses are those of all rows, whether they took part or not."""

    n_iter: int
    """Iterations of L-BFGS."""
    n_evaluations: int
    """Gradients that were computed, each from all rows that took part."""
    loss_before: float
    """The objective F before."""
    loss: float
    """The objective F of the weights that were kept."""
    valid_loss_before: float
    """Loss of the validation rows before; nan without them."""
    valid_loss: float
    """Loss of the validation rows with the weights that were kept."""
    improved: bool
    """Whether new weights were kept."""
    interrupted: bool
    """Whether Ctrl-C ended it; the best weights until then are judged as usual."""


def polish(
    network: Network,
    rows: Rows,
    validation: Rows | None,
    fit_loss: FitLoss,
    *,
    weight_decay: float = 0.0,
    max_iter: int = 1000,
    max_rows: int = 16_384,
) -> Polish:
    """Minimise the training loss of `network` in place with L-BFGS.

    Computed in float64; the network keeps its dtype and is left in evaluation mode. Gates
    have no noise and keep their temperature; auxiliary losses play no part. New weights are
    kept only if they are finite and lower the objective on all rows and, if there are any,
    the loss on the validation rows: the network never ends worse than it started. The same
    call gives the same weights.

    Parameters
    ----------
    network : Network
        A trained network, on the device of the rows.
    rows : Rows
        To minimise the loss on. Of rows with a positive weight, at most `max_rows` take
        part, spread evenly over their order.
    validation : Rows or None
        To choose the best iteration by, and to stop when none gets better.
    fit_loss : FitLoss
        Loss of each row.
    weight_decay : float, default=0.0
        Adds ``weight_decay / 2`` times the squared norm of the maps; biases are free.
    max_iter : int, default=1000
        Iterations at most. A net of piecewise linear units improves over thousands.
    max_rows : int, default=16_384
        Rows that take part. Ten or more per weight are enough where there is no noise.

    Returns
    -------
    Polish
        Iterations, and losses before and after.

    Examples
    --------
    >>> import torch
    >>> from skmoe.batches import Rows
    >>> from skmoe.nn.losses import SquaredError
    >>> from skmoe.nn.networks import MoENetwork
    >>> generator = torch.Generator().manual_seed(0)
    >>> network = MoENetwork(1, 1, n_experts=2, generator=generator)
    >>> x = torch.linspace(-1, 1, 200)[:, None]
    >>> record = polish(network, Rows(x, x.sin(), torch.ones(200)), None, SquaredError())
    >>> record.improved, record.loss < 1e-5 < record.loss_before
    (True, True)
    """
    dtype = next(network.parameters()).dtype
    network.eval().double()
    try:
        search = _Search(network, rows, validation, fit_loss, weight_decay)
        return search.run(max_iter, max_rows, dtype)
    finally:
        network.zero_grad(set_to_none=True)
        network.to(dtype)


class _Search:
    """The state of one finish: the weights as one vector, and the best one so far."""

    def __init__(
        self,
        network: Network,
        rows: Rows,
        validation: Rows | None,
        fit_loss: FitLoss,
        weight_decay: float,
    ) -> None:
        self.network, self.fit_loss, self.weight_decay = network, fit_loss, weight_decay
        self.rows, self.validation = rows, validation
        trained = [(name, w) for name, w in network.named_parameters() if w.requires_grad]
        shares = [torch.full_like(w, decays(name, w)).flatten() for name, w in trained]
        self.vector, self.decayed = flatten([w for _, w in trained]), torch.cat(shares)
        self.start = self.vector.detach().clone()
        self.best, self.best_score = self.start, np.inf
        self.n_iter = self.n_evaluations = self.looks_in_vain = 0

    def run(self, max_iter: int, max_rows: int, dtype: torch.dtype) -> Polish:
        """Search, then keep the best weights if they are better on everything."""
        before, valid_before = self.objective(self.start), self.validate(self.start)
        interrupted = False
        if 0 < before < np.inf:
            interrupted = self.search(_take_part(self.rows, max_rows), max_iter, before)
        # Judged in the precision in which they will be used.
        best = self.best.to(dtype).double()
        after, valid_after = self.objective(best), self.validate(best)
        improved = after < before and (self.validation is None or valid_after < valid_before)
        if not improved:
            after, valid_after = before, valid_before
            self.put(self.start)
        return Polish(
            n_iter=self.n_iter,
            n_evaluations=self.n_evaluations,
            loss_before=before,
            loss=after,
            valid_loss_before=valid_before,
            valid_loss=valid_after,
            improved=improved,
            interrupted=interrupted,
        )

    def search(self, rows: Rows, max_iter: int, unit: float) -> bool:
        """Run L-BFGS on the objective divided by `unit`; tell if Ctrl-C ended it."""
        from scipy.optimize import minimize

        if self.validation is not None:
            self.best_score = self.validate(self.start)
        try:
            minimize(
                lambda weights: self.value_and_slope(weights, rows, unit),
                self.start.cpu().numpy(),
                jac=True,
                method="L-BFGS-B",
                callback=self.after_iteration,
                options={
                    "maxiter": max_iter,
                    "maxfun": 2 * max_iter + 20,
                    "maxcor": MEMORY,
                    "ftol": TOLERANCE,
                    "gtol": 0.0,
                },
            )
        except KeyboardInterrupt:
            return True
        return False

    def value_and_slope(
        self, weights: np.ndarray, rows: Rows, unit: float
    ) -> tuple[float, np.ndarray]:
        """The objective on `rows` and its gradient, both divided by `unit`."""
        self.n_evaluations += 1
        vector = self.put(torch.from_numpy(weights.copy()).to(self.start))
        slope = cast(Tensor, self.vector.grad).zero_()
        value = _mean_loss(self.network, rows, self.fit_loss, Tensor.backward)
        value += self.penalty(vector)
        slope = slope + self.weight_decay * self.decayed * vector
        if self.validation is None and value < self.best_score:
            self.best, self.best_score = vector, value
        return value / unit, slope.cpu().numpy() / unit

    def after_iteration(self, weights: np.ndarray) -> None:
        """Look at the validation rows now and then."""
        self.n_iter += 1
        if self.validation is None or self.n_iter % ITERATIONS_PER_LOOK:
            return
        vector = torch.from_numpy(weights.copy()).to(self.start)
        score = self.validate(vector)
        if score < self.best_score:
            self.best, self.best_score, self.looks_in_vain = vector, score, 0
            return
        self.looks_in_vain += 1
        if self.looks_in_vain >= PATIENCE:
            raise StopIteration  # understood by `minimize`

    @torch.no_grad()
    def objective(self, vector: Tensor) -> float:
        """F on all rows."""
        self.put(vector)
        return _mean_loss(self.network, self.rows, self.fit_loss) + self.penalty(vector)

    @torch.no_grad()
    def validate(self, vector: Tensor) -> float:
        """Loss of the validation rows; nan without them."""
        self.put(vector)
        if self.validation is None:
            return math.nan
        return _mean_loss(self.network, self.validation, self.fit_loss)

    def penalty(self, vector: Tensor) -> float:
        return float(self.weight_decay / 2 * (self.decayed * vector.square()).sum())

    def put(self, vector: Tensor) -> Tensor:
        """Make these the weights of the network."""
        self.vector.data.copy_(vector)
        return vector


def _mean_loss(
    network: Network,
    rows: Rows,
    fit_loss: FitLoss,
    use: Callable[[Tensor], object] = lambda loss: None,
) -> float:
    """Weighted mean loss; its parts, one for each chunk of rows, are handed to `use`."""
    total, size = 0.0, CUDA_CHUNK if rows.x.is_cuda else CPU_CHUNK
    weight_sum = float(rows.weight.double().sum())
    for (x, weight), y in Batches(rows, size, None):
        prediction, _ = network(x.double())
        part = (fit_loss(prediction, y.double()) * weight.double()).sum() / weight_sum
        use(part)
        total += float(part.detach())
    return total


def _take_part(rows: Rows, max_rows: int) -> Rows:
    """At most `max_rows` rows of positive weight, evenly spread; in float64."""
    index = torch.nonzero(rows.weight > 0).flatten()
    if len(index) > max_rows:
        spread = torch.arange(max_rows, device=index.device) * len(index) // max_rows
        index = index[spread]
    return Rows(rows.x[index].double(), rows.y[index].double(), rows.weight[index].double())
