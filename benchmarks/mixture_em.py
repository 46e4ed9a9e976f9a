"""A Gaussian mixture of shared and routed experts in one dimension, and its likelihood fit.

The model of Nguyen et al., "On DeepSeekMoE" (2025), appendix G: half of the rows come from
shared experts, by fixed weights, half from routed ones, by the weights of a gate:

    ``p(y | x) = 1/2 sum_i w_i N(y; h_i(x), t_i) + 1/2 sum_j g_j(x) N(y; h_j(x), v_j)``.

Experts are ``h(x) = a x + b`` or ``h(x) = c ReLU(a x + b)``, with c held, as only the products
c a and c b can be told from data.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax, logsumexp

Array = NDArray[np.float64]

# Theory has its parameters in a compact set.
MIN_VARIANCE = 0.02
MAX_GATE = 6.0
GATE_ITERATIONS = 10


@dataclass(frozen=True)
class Experts:
    """Maps of several experts and their variances."""

    lines: Array
    """``(k, 2)``: a and b."""
    variances: Array
    """``(k,)``."""
    outer: float | None = None
    """c, or None for linear experts."""

    def mean(self, x: Array) -> Array:
        """``(n, k)``."""
        inner = x[:, None] * self.lines[:, 0] + self.lines[:, 1]
        return inner if self.outer is None else self.outer * np.maximum(inner, 0)

    def log_density(self, x: Array, y: Array) -> Array:
        """``(n, k)``."""
        squares = (y[:, None] - self.mean(x)) ** 2 / self.variances
        return -0.5 * (squares + np.log(2 * np.pi * self.variances))

    def take(self, own: NDArray[np.intp]) -> "Experts":
        return replace(self, lines=self.lines[own], variances=self.variances[own])

    def step(self, x: Array, y: Array, weights: Array) -> "Experts":
        """A weighted Gauss-Newton step of each map, shortened until it helps; variances."""
        lines, variances = self.lines.copy(), np.empty_like(self.variances)
        for i, weight in enumerate(weights.T):
            lines[i], error = self._line_step(x, y, weight, lines[i])
            variances[i] = max(error / weight.sum(), MIN_VARIANCE)
        return replace(self, lines=lines, variances=variances)

    def _line_step(self, x: Array, y: Array, weight: Array, line: Array) -> tuple[Array, float]:
        def residual(line: Array) -> Array:
            return y - replace(self, lines=line[None]).mean(x)[:, 0]

        left = residual(line)
        error = float(weight @ left**2)
        active = np.ones_like(x)
        if self.outer is not None:
            active = self.outer * (line[0] * x + line[1] > 0)
        jacobian = np.stack([active * x, active], axis=1)
        curvature = (jacobian.T * weight) @ jacobian
        curvature += 1e-9 * np.trace(curvature) * np.eye(2) + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, jacobian.T @ (weight * left))
        for size in 0.5 ** np.arange(10):
            new_error = float(weight @ residual(line + size * step) ** 2)
            if new_error <= error:
                return line + size * step, new_error
        return line, error


@dataclass(frozen=True)
class Gate:
    """Scores ``slope x + offset``, and weights by a softmax or by sigmoids over their sum."""

    kind: str
    offsets: Array
    slopes: Array

    def log_weights(self, x: Array) -> Array:
        """``(n, k)``."""
        return self._log_weights(x[:, None] * self.slopes + self.offsets)

    def _log_weights(self, scores: Array) -> Array:
        if self.kind == "softmax":
            return np.asarray(log_softmax(scores, axis=1))
        logs = log_expit(scores)
        return np.asarray(logs - logsumexp(logs, axis=1, keepdims=True))

    def take(self, own: NDArray[np.intp]) -> "Gate":
        return replace(self, offsets=self.offsets[own], slopes=self.slopes[own])

    def step(self, x: Array, weights: Array) -> "Gate":
        """A few iterations of L-BFGS on the cross-entropy to the responsibilities."""
        k, mass = len(self.offsets), weights.sum()
        of_row = weights.sum(1, keepdims=True)

        def loss(parameters: Array) -> tuple[float, Array]:
            scores = x[:, None] * parameters[k:] + parameters[:k]
            logs = self._log_weights(scores)
            slope = np.exp(logs) * of_row - weights
            if self.kind == "sigmoid":
                slope *= expit(-scores)
            gradient = np.concatenate([slope.sum(0), x @ slope])
            return -float((weights * logs).sum()) / mass, gradient / mass

        found = minimize(
            loss,
            np.concatenate([self.offsets, self.slopes]),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-MAX_GATE, MAX_GATE)] * (2 * k),
            options={"maxiter": GATE_ITERATIONS},
        ).x
        return replace(self, offsets=found[:k], slopes=found[k:])


@dataclass(frozen=True)
class Mixture:
    """The whole model."""

    shared_weights: Array
    shared: Experts
    gate: Gate
    routed: Experts

    def log_parts(self, x: Array, y: Array) -> Array:
        """Logarithm of each expert's part of the density, ``(n, k_shared + k_routed)``."""
        shared = np.log(self.shared_weights) + self.shared.log_density(x, y)
        routed = self.gate.log_weights(x) + self.routed.log_density(x, y)
        return np.concatenate([shared, routed], axis=1) + np.log(0.5)

    def take(self, shared: NDArray[np.intp], routed: NDArray[np.intp]) -> "Mixture":
        """With these of its experts, of which some may be taken several times."""
        weights = self.shared_weights[shared]
        return Mixture(
            weights / weights.sum(),
            self.shared.take(shared),
            self.gate.take(routed),
            self.routed.take(routed),
        )

    def sample(self, n: int, random: np.random.Generator) -> tuple[Array, Array]:
        """Rows, with x uniform in [-3, 3]."""
        x = random.uniform(-3, 3, n)
        weights = np.concatenate(
            [np.tile(self.shared_weights, (n, 1)), np.exp(self.gate.log_weights(x))], axis=1
        )
        levels = weights.cumsum(1) / 2
        asked = (random.random((n, 1)) > levels[:, :-1]).sum(1)
        means = np.concatenate([self.shared.mean(x), self.routed.mean(x)], axis=1)
        variances = np.concatenate([self.shared.variances, self.routed.variances])
        noise = np.sqrt(variances[asked]) * random.standard_normal(n)
        return x, means[np.arange(n), asked] + noise

    def jitter(self, scale: float, random: np.random.Generator) -> "Mixture":
        """Normal deviations of all parameters; of variances and weights, of their logs."""

        def add(values: Array) -> Array:
            return values + scale * random.standard_normal(values.shape)

        def move(experts: Experts) -> Experts:
            variances = np.exp(add(np.log(experts.variances)))
            return replace(experts, lines=add(experts.lines), variances=variances)

        weights = np.exp(add(np.log(self.shared_weights)))
        gate = replace(self.gate, offsets=add(self.gate.offsets), slopes=add(self.gate.slopes))
        return Mixture(weights / weights.sum(), move(self.shared), gate, move(self.routed))


def fit(
    start: Mixture, x: Array, y: Array, tol: float = 1e-6, max_iter: int = 1000
) -> tuple[Mixture, list[float]]:
    """Generalised expectation-maximisation; the fit, and the mean log-likelihoods on the way.

    Each step of the maximisation improves what it need not maximise (one Gauss-Newton step
    for each expert, a few iterations for the gate), so that the likelihood never falls.
    """
    model, likelihoods = start, [-np.inf]
    k = len(start.shared_weights)
    for _ in range(max_iter):
        parts = model.log_parts(x, y)
        total = logsumexp(parts, axis=1)
        likelihoods.append(float(total.mean()))
        if likelihoods[-1] - likelihoods[-2] < tol:
            break
        weights = np.exp(parts - total[:, None])
        shared, routed = weights[:, :k], weights[:, k:]
        model = Mixture(
            shared.sum(0) / shared.sum(),
            model.shared.step(x, y, shared),
            model.gate.step(x, routed),
            model.routed.step(x, y, routed),
        )
    return model, likelihoods[1:]
