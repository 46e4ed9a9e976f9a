"""`MoERegressor`: one layer of experts."""

import numpy as np

from skmoe.estimators._base import BaseMoERegressor
from skmoe._validation import check_is_fitted


class MoERegressor(BaseMoERegressor):
    """doc"""

    def __init__(
        self,
        n_experts=8,
        *,
        top_k="auto",
        n_shared_experts=0,
        gate="linear",
        router="softmax",
        expert="mlp",
        hidden_dim=64,
        embedding="auto",
        loss="squared_error",
        auxiliary_losses=None,
        learning_rate=3e-3,
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
        if self._intercept_in_experts(model):
            return self._like_y(np.zeros((len(X), len(model.y_scaling.center))))
        shared = 0.0
        if model.net.layer.shared is not None:
            shared = model.shared(X)[0]
        return self._like_y(
            model.y_scaling.invert(shared + np.zeros((len(X), len(model.y_scaling.center))))
        )

    def _network(self):
        return "shallow", {}

    def _layers(self, arrays, layer, stack=False):
        return arrays[0]

    def _expert_answers(self, model, X):
        answers = model.experts(X)[0]
        center = model.y_scaling.center if self._intercept_in_experts(model) else 0.0
        answers = center + model.y_scaling.scale * answers
        return [answers[..., 0] if self._y_ndim == 1 else answers]

    @staticmethod
    def _intercept_in_experts(model) -> bool:
        layer = model.net.layer
        return layer.shared is None and layer.router.weights_sum_to_one
