"""`DeepMoERegressor`: several layers or blocks of experts."""

import numpy as np

from skmoe._registry import part
from skmoe._validation import PartOf, at_least
from skmoe.estimators._base import BaseMoERegressor
from skmoe.nn.networks import ARRANGEMENTS


class DeepMoERegressor(BaseMoERegressor):
    """doc"""

    _parameter_constraints = {
        **BaseMoERegressor._parameter_constraints,
        "n_layers": [at_least(1)],
        "model_dim": [at_least(1)],
        "arrangement": [PartOf(ARRANGEMENTS)],
    }

    def __init__(
        self,
        n_layers=8,
        n_experts=8,
        *,
        top_k="auto",
        n_shared_experts=0,
        arrangement="parallel",
        model_dim=128,
        gate="linear",
        router="softmax",
        expert="latent",
        hidden_dim=32,
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
        self.n_layers = n_layers
        self.n_experts = n_experts
        self.top_k = top_k
        self.n_shared_experts = n_shared_experts
        self.arrangement = arrangement
        self.model_dim = model_dim
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

    def _network(self):
        spec = part(self.arrangement) if isinstance(self.arrangement, str) else self.arrangement
        _, settings = ARRANGEMENTS.resolve(spec)
        settings = {"n_layers": self.n_layers, "model_dim": self.model_dim, **settings}
        return spec.name, settings

    def _layers(self, arrays, layer, stack=False):
        if layer is not None:
            return arrays[layer]
        return np.stack(arrays, axis=-1 if arrays[0].dtype.kind == "i" else 0) if stack else arrays

    def _expert_answers(self, model, X):
        return model.experts(X)
