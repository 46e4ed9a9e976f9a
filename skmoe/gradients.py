"""Gradients in a fit, whoever has switched them off."""

from contextlib import AbstractContextManager
from typing import Any

import torch


def gradients() -> AbstractContextManager[Any]:
    """A context in which gradients are computed; after it all is as it was before.

    Also after Ctrl-C amid one of torch's switches: those that are written in Python then stay
    as they are, and no later fit of the process would have a gradient.
    """
    return torch.inference_mode(mode=False)
