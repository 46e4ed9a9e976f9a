"""Parts by name: the one place where a string becomes a class.

A part (a gate, a router, an expert, ...) is named by a string, by the string with
settings, ``part("mlp", hidden_dim=32)``, or by a class of one's own. Each kind of part
has one `Registry`, at the bottom of the file in which its classes live.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias


class Part:
    """The name of a part together with its settings. Made by `part`."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.name = name
        self.settings = settings

    # `get_params` and `set_params` are what `clone` and a search over
    # ``router__n_groups`` need. BaseEstimator does not serve, as it forbids **settings.
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Name and settings as one dict."""
        return {"name": self.name, **self.settings}

    def set_params(self, **params: Any) -> "Part":
        """Change the name or any setting; unknown settings are refused in `fit`."""
        self.name = params.pop("name", self.name)
        self.settings = {**self.settings, **params}
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self.get_params() == other.get_params()

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        settings = "".join(f", {key}={value!r}" for key, value in self.settings.items())
        return f"part({self.name!r}{settings})"


def part(name: str, **settings: Any) -> Part:
    """Name a part of an estimator together with its settings.

    Parameters
    ----------
    name : str
        The name of the part, as the estimator's parameter accepts it.
    **settings
        The part's settings. They are checked in `fit`, where the kind of part is known.

    Returns
    -------
    Part
        An object that `sklearn.base.clone` copies and whose settings a search reaches by
        ``<parameter>__<setting>``.

    Examples
    --------
    >>> from skmoe import MoERegressor, part
    >>> gate = part("mlp", hidden_dim=16)
    >>> MoERegressor(gate=gate).get_params()["gate__hidden_dim"]
    16
    """
    return Part(name, **settings)


def own_copy(spec: Any) -> Any:
    """The same parts, which `set_params` on what the user has does not reach."""
    if isinstance(spec, Part):
        return Part(spec.name, **spec.settings)
    return [own_copy(one) for one in spec] if isinstance(spec, list | tuple) else spec


# How a part is given: by its name, by the name with settings, or as a class; experts of several
# kinds as a list of these.
Spec: TypeAlias = str | Part | Callable[..., Any] | Sequence["Spec"]


class Registry(Mapping[str, Callable[..., Any]]):
    """The parts of one kind, by name.

    Examples
    --------
    >>> from skmoe.nn.gates import GATES
    >>> sorted(GATES)
    ['cosine', 'deep', 'hash', 'linear', 'mlp', 'patch', 'prototype', 'quadratic', 'region']
    """

    def __init__(self, kind: str, classes: Mapping[str, Callable[..., Any]]) -> None:
        self.kind = kind
        self._classes = dict(classes)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name not in self._classes:
            raise ValueError(
                f"{self.kind} must be one of {sorted(self._classes)} or a class. "
                f"Got {name!r}.{did_you_mean(name, self._classes)}"
            )
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def resolve(self, spec: Spec) -> tuple[Callable[..., Any], dict[str, Any]]:
        """The class that `spec` names, and the settings that go with it."""
        if isinstance(spec, Part):
            cls = self[spec.name]
            self._check_settings(spec, cls)
            return cls, dict(spec.settings)
        if isinstance(spec, str):
            return self[spec], {}
        if callable(spec):
            return spec, {}
        raise TypeError(f"{self.kind} must be a str, a part(...) or a class. Got {spec!r}.")

    def build(self, spec: Spec, *args: Any, **offered: Any) -> Any:
        """Make the part: of what is offered it gets what it takes, its own settings on top."""
        cls, settings = self.resolve(spec)
        taken = {key: value for key, value in offered.items() if key in keywords_of(cls)}
        return cls(*args, **{**taken, **settings})

    def _check_settings(self, spec: Part, cls: Callable[..., Any]) -> None:
        valid = settings_of(cls)
        for name in spec.settings:
            if name not in valid:
                raise ValueError(
                    f"{self.kind} {spec.name!r} takes the settings {sorted(valid)}. "
                    f"Got {name!r}.{did_you_mean(name, valid)}"
                )


def name_of(spec: Spec) -> str:
    """What to call a part in a message or a table."""
    if isinstance(spec, Part):
        return spec.name
    if isinstance(spec, list | tuple):
        return str([name_of(one) for one in spec])
    return spec if isinstance(spec, str) else getattr(spec, "__name__", repr(spec))


def keywords_of(cls: Callable[..., Any]) -> set[str]:
    """Keyword-only arguments of a part, those that it hands on to its bases included."""
    return set(_keywords_of_class(cls) if isinstance(cls, type) else _keyword_only(cls))


@lru_cache(maxsize=256)  # a signature takes long to read, and a list may name a class often
def _keywords_of_class(cls: type) -> frozenset[str]:
    makers = [vars(base).get("__init__") for base in cls.__mro__]
    return frozenset().union(*map(_keyword_only, filter(None, makers)))


def _keyword_only(maker: Callable[..., Any]) -> frozenset[str]:
    return frozenset(
        parameter.name
        for parameter in inspect.signature(maker).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    )


def settings_of(cls: Callable[..., Any]) -> set[str]:
    """The settings of a part that a user may give."""
    return keywords_of(cls) - {"generator"}


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A sentence that names the nearest valid name, or nothing."""
    close = difflib.get_close_matches(str(name), list(valid), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
