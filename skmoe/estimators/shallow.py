"""`MoERegressor`: one layer of experts."""

from skmoe.estimators import _auto
from skmoe.estimators._base import BaseMoERegressor
from skmoe.estimators._parameters import documented


@documented(gate='"linear"', learning_rate="1e-2", weight_decay="1e-2")
class MoERegressor(BaseMoERegressor):
    """Mixture of experts: a learned gate shares the inputs out among small nets.

    ``f(x) = shared(x) + sum_k w_k(x) f_{{e_k}}(x)``, all of it trained jointly by gradient
    descent on standardised data. One layer of experts approximates a function on a
    d-dimensional manifold at a rate that depends on d, not on the number of features
    (Wang & E, 2025, theorem 4.8).

    Parameters
    ----------
    n_experts : int or "auto", default="auto"
        Number of experts. "auto" is 8; with ``solver="ridge"``, 16 above 4,000 rows and 32
        above 250,000.
    {routing}
    expert : {experts}, part(...) or class, default="mlp"
        What an expert is: "mlp" has a ReLU layer, or one of GELU, which is smooth, with
        ``solver="ridge"``. "latent" puts a low-dimensional linear encoder in front of gate
        and experts.
    hidden_dim : int or "auto", default="auto"
        Width of an expert, for the kinds that have a hidden layer. "auto" is 64, and 32
        up to 512 rows; with ``solver="ridge"`` such that the hidden units of all experts
        are some ``16 sqrt(n)``, up to 2,048, or ``4 sqrt(n)``, up to 4,096.
    {training}

    Attributes
    ----------
    {attributes}
    expert_usage_ : ndarray of shape (n_experts,)
        Share of the routing weight that each expert gets on training rows; sums to one. An
        expert below ``1 / (10 n_experts)`` counts as dead.

    See Also
    --------
    DeepMoERegressor : Several layers or blocks of experts.

    References
    ----------
    M. Wang and W. E. "On the Expressive Power of Mixture-of-Experts for Structured Complex
    Tasks", 2025, arXiv:2505.24205.

    Examples
    --------
    >>> from skmoe import MoERegressor
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(300, random_state=0)
    >>> moe = MoERegressor(n_experts=4, random_state=0).fit(X, y)
    >>> moe.predict(X).shape
    (300,)
    >>> moe.score(X, y) > 0.99
    True
    >>> moe.predict_gates(X).sum(axis=1).round(6).min()
    np.float64(1.0)
    """

    _hidden_dims = {"usual": 64, "small": 32}

    def __init__(
        self,
        n_experts="auto",
        *,
        top_k="auto",
        n_shared_experts=0,
        gate="linear",
        router="softmax",
        expert="mlp",
        hidden_dim="auto",
        embedding="auto",
        loss="squared_error",
        auxiliary_losses=None,
        init="auto",
        solver="auto",
        learning_rate=1e-2,
        weight_decay=1e-2,
        batch_size="auto",
        max_epochs="auto",
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=None,
        warm_start=False,
        callbacks=None,
        device="auto",
        dtype="auto",
        random_state=None,
        verbose=0,
    ):
        self.n_experts = n_experts
        self.top_k = top_k
        self.n_shared_experts = n_shared_experts
        self.gate = gate
        self.router = router
        self.expert = expert
        self.hidden_dim = hidden_dim
        self.embedding = embedding
        self.loss = loss
        self.auxiliary_losses = auxiliary_losses
        self.init = init
        self.solver = solver
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def predict_shared(self, X):
        """What is added to the weighted experts: shared experts and intercept.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the units of y. Zero if nothing is shared and the weights sum to one: the
            intercept then is part of every expert.
        """
        model, X = self._ready(X)
        shared = model.shared(X)[0]
        if not self._intercept_in_experts(model):
            shared = model.y_scaling.invert(shared)
        return self._like_y(shared)

    def _network(self, n_rows):
        return "shallow", {}

    def _sizes(self, n_rows, n_features, solver):
        if solver == "ridge":
            return _auto.sizes_without_training(self, n_rows)
        return super()._sizes(n_rows, n_features, solver)

    def _layers(self, arrays, layer, stack=False):
        return arrays[0]

    def _expert_answers(self, model, X):
        answers = model.experts(X)[0]
        center = model.y_scaling.center if self._intercept_in_experts(model) else 0.0
        answers = center + model.y_scaling.scale * answers
        return [answers[..., 0] if self._y_ndim == 1 else answers]

    @staticmethod
    def _intercept_in_experts(model) -> bool:
        (layer,) = model.net.moe_layers()
        return layer.shared is None and layer.router.weights_sum_to_one
