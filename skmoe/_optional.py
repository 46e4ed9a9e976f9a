"""Optional packages, imported where they are needed and not before."""

import importlib
from typing import Any


def import_optional(module: str, need: str, extra: str) -> Any:
    """The module, or an error that starts with the `need` and says which extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{need}, which is not installed. Run: pip install skmoe[{extra}]"
        ) from error
