"""Parts by name: lookup, settings, errors that help, and what a search can reach."""

import pickle

import pytest
from sklearn.base import clone

from skmoe import MoERegressor, part
from skmoe._registry import Registry, did_you_mean, keywords_of, settings_of
from skmoe.nn.dispatch import DISPATCHERS
from skmoe.nn.embeddings import EMBEDDINGS
from skmoe.nn.experts import EXPERTS
from skmoe.nn.gates import GATES
from skmoe.nn.losses import AUXILIARY_LOSSES, LOSSES
from skmoe.nn.networks import ARRANGEMENTS, NETWORKS
from skmoe.nn.routers import ROUTERS

REGISTRIES = [
    GATES,
    ROUTERS,
    EXPERTS,
    EMBEDDINGS,
    LOSSES,
    AUXILIARY_LOSSES,
    DISPATCHERS,
    ARRANGEMENTS,
    NETWORKS,
]
every_registry = pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.kind)
every_part = pytest.mark.parametrize(
    ("registry", "name"),
    [(registry, name) for registry in REGISTRIES for name in registry],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)


class Base:
    def __init__(self, size, *, depth=1, generator=None):
        self.size, self.depth, self.generator = size, depth, generator


class Derived(Base):
    def __init__(self, size, *, width=2, **shared):
        super().__init__(size, **shared)
        self.width = width


SHAPES = Registry("shape", {"base": Base, "derived": Derived})


# Names


@every_part
def test_a_name_finds_its_class(registry, name):
    assert name in registry
    assert registry.resolve(name) == (registry[name], {})
    assert registry.resolve(part(name)) == (registry[name], {})


@every_part
def test_every_part_says_what_it_is(registry, name):
    assert registry[name].__doc__


@every_registry
def test_an_unknown_name_is_refused_with_the_valid_names(registry):
    assert "@@@" not in registry
    with pytest.raises(ValueError, match=f"^{registry.kind} must be one of") as error:
        registry.resolve("@@@")
    assert all(repr(name) in str(error.value) for name in registry)
    assert "Got '@@@'." in str(error.value)
    assert "Did you mean" not in str(error.value)


@every_part
@pytest.mark.parametrize("wrap", [str, part], ids=["str", "part"])
def test_a_misspelt_name_is_refused_with_the_nearest_one(registry, name, wrap):
    misspelt = name + "x"
    with pytest.raises(ValueError, match=f"Got {misspelt!r}. Did you mean {name!r}?"):
        registry.resolve(wrap(misspelt))


@every_registry
@pytest.mark.parametrize("spec", [None, 3, {"linear"}])
def test_what_is_no_name_part_or_class_is_refused_with_its_value(registry, spec):
    with pytest.raises(TypeError, match="must be a str, a part") as error:
        registry.resolve(spec)
    assert f"Got {spec!r}" in str(error.value)


@every_registry
def test_a_callable_of_ones_own_passes(registry):
    class Mine:
        pass

    assert registry.resolve(Mine) == (Mine, {})


def test_did_you_mean_is_silent_without_a_near_name():
    assert did_you_mean("linaer", ["linear", "mlp"]) == " Did you mean 'linear'?"
    assert did_you_mean("zzz", ["linear", "mlp"]) == ""


# Settings


@every_part
def test_an_unknown_setting_is_refused_with_the_valid_ones(registry, name):
    with pytest.raises(ValueError, match="takes the settings") as error:
        registry.resolve(part(name, **{"@@@": 1}))
    valid = sorted(settings_of(registry[name]))
    assert f"{registry.kind} {name!r} takes the settings {valid}" in str(error.value)
    assert "Got '@@@'." in str(error.value)


@every_part
def test_a_misspelt_setting_is_refused_with_the_nearest_one(registry, name):
    for setting in settings_of(registry[name]):
        with pytest.raises(ValueError, match=f"Did you mean {setting!r}"):
            registry.resolve(part(name, **{setting + "x": 1}))


@every_part
def test_the_generator_is_no_setting_of_the_user(registry, name):
    assert "generator" not in settings_of(registry[name])
    with pytest.raises(ValueError, match="Got 'generator'"):
        registry.resolve(part(name, generator=None))


def test_settings_include_those_of_the_bases():
    assert keywords_of(Derived) == {"width", "depth", "generator"}
    assert settings_of(Derived) == {"width", "depth"}


def test_settings_of_a_function_are_its_keywords():
    def make(size, *, colour, generator=None):
        return size, colour, generator

    assert settings_of(make) == {"colour"}


# Building


def test_build_offers_and_the_part_takes_what_it_knows():
    built = SHAPES.build("derived", 5, depth=7, width=8, colour="red")
    assert (type(built), built.size, built.depth, built.width) == (Derived, 5, 7, 8)
    assert SHAPES.build("base", 5, width=8).depth == 1


def test_settings_of_the_part_win_over_what_is_offered():
    assert SHAPES.build(part("base", depth=3), 5, depth=7).depth == 3


def test_build_takes_a_class_of_ones_own():
    assert type(SHAPES.build(Derived, 5)) is Derived


def test_build_does_not_change_the_part():
    spec = part("base", depth=3)
    SHAPES.resolve(spec)[1]["depth"] = 9
    SHAPES.build(spec, 5, generator=1)
    assert spec == part("base", depth=3)


# part(...)


def test_parts_are_equal_by_name_and_settings():
    assert part("mlp", hidden_dim=3) == part("mlp", hidden_dim=3)
    assert hash(part("mlp", hidden_dim=3)) == hash(part("mlp", hidden_dim=3))
    assert part("mlp", hidden_dim=3) != part("mlp", hidden_dim=4)
    assert part("mlp", hidden_dim=3) != part("mlp")
    assert part("mlp") != part("linear")
    assert part("mlp") != "mlp"


@pytest.mark.parametrize("spec", [part("mlp"), part("mlp", hidden_dim=3, activation="tanh")])
def test_repr_of_a_part_evaluates_to_it(spec):
    assert eval(repr(spec), {"part": part}) == spec  # noqa: S307


def test_part_is_cloned_and_pickled_by_value():
    spec = part("mlp", hidden_dim=3, temperature=(2.0, 0.5))
    for copy in (clone(spec), pickle.loads(pickle.dumps(spec))):
        assert copy == spec
        assert copy is not spec
    clone(spec).set_params(hidden_dim=9)
    assert spec.settings["hidden_dim"] == 3


def test_get_and_set_params_reach_name_and_settings():
    spec = part("mlp", hidden_dim=3)
    assert spec.get_params() == {"name": "mlp", "hidden_dim": 3}
    assert spec.set_params(hidden_dim=5, activation="tanh") is spec
    assert spec == part("mlp", hidden_dim=5, activation="tanh")
    assert spec.set_params(name="linear").name == "linear"


# In an estimator


def test_estimator_reaches_the_settings_of_its_parts():
    moe = MoERegressor(gate=part("mlp", hidden_dim=16))
    assert moe.get_params()["gate__hidden_dim"] == 16
    moe.set_params(gate__hidden_dim=5)
    assert moe.gate == part("mlp", hidden_dim=5)


def test_clone_of_an_estimator_has_parts_of_its_own():
    moe = MoERegressor(gate=part("mlp", hidden_dim=16))
    copy = clone(moe).set_params(gate__hidden_dim=5)
    assert moe.gate.settings["hidden_dim"] == 16
    assert copy.gate.settings["hidden_dim"] == 5
