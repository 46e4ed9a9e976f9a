"""scikit-learn's callbacks, which are experimental: the only file that knows their making.

Where a later scikit-learn has none, or makes them otherwise, estimators still fit, and
`set_callbacks` is not there.
"""

from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # experimental in scikit-learn 1.9: it may go again

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""


__all__ = ["CallbackSupportMixin", "begin_fit", "has_callbacks"]


def begin_fit(estimator: Any) -> Any:
    """The context of a fit whose parts are not known in advance; None without support.

    It is needed without callbacks as well, to find its place below that of a pipeline.
    """
    begin = getattr(estimator, "_init_callback_context", None)
    return None if begin is None else begin(max_subtasks=None)


def has_callbacks(estimator: Any) -> bool:
    """Whether somebody looks on."""
    return bool(getattr(estimator, "_skl_callbacks", None))
