"""Floors: a module imports only from lower floors, so that the tree can be read upwards."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "skmoe"

# From the ground up. A module imports only from floors above its own line in this list.
FLOORS = [
    {
        "_version",
        "_registry",
        "_settings",
        "_optional",
        "_fork",
        "threads",
        "gradients",
        "shared_work",
        "_features",
        "_callbacks",
    },
    {
        "_validation",
        "scaling",
        "model_file",
        "distribution",
        "voronoi",
        "damped_solve",
        "monitors",
    },
    {"stored_values", "axes"},
    {"common_factors"},
    {
        "nn",
        "nn.stacked",
        "nn.hidden_layer",
        "nn.sorting",
        "nn.base_routers",
        "nn.base_gates",
        "datasets._generation",
        "datasets.loaders",
    },
    {"nn.base_experts", "nn.soft_mixture", "nn.sparse_mixture", "nn.block_mixture"},
    {"nn.mlp_experts", "nn.polynomials", "datasets._cells"},
    {"nn.factorized", "nn.patches", "nn.region_gates", "nn.expert_choice"},
    {"nn.gates", "nn.routers", "nn.embeddings", "datasets.manifolds", "datasets.targets"},
    {"datasets.iterated"},
    {
        "nn.experts",
        "nn.losses",
        "datasets.generators",
        "datasets.experiments",
    },
    {"nn.dispatch", "datasets"},
    {"nn.layers"},
    {"nn.base"},
    {"nn.ensemble"},
    {"nn.networks"},
    {"nn.adapters"},
    {"batches", "optimizer", "objective", "checkpoint"},
    {"short_memory", "stacked_rows", "stacked_optimizer", "known_by_hand", "precision"},
    {"model", "plan", "layer_gradient", "resident", "normal_equations"},
    {"shallow_gradient"},
    {"course", "kinds"},
    {"loop", "embedded_rows", "stacked_objective"},
    {"stacked_steps"},
    {
        "training",
        "initialization",
        "linear_solve",
        "second_order",
        "surgery",
        "folds",
        "stored_model",
        "onnx_export",
    },
    {"structure", "upcycling", "side_by_side", "cuts"},
    {"regions", "pieces", "region_borders"},
    {"estimators._border_regression"},
    {"estimators._block_borders"},
    {
        "estimators._auto",
        "estimators._brief",
        "estimators._splits",
        "estimators._borders",
        "estimators._regions",
        "estimators._closed_form",
        "estimators._glance",
        "estimators._parameters",
        "estimators._second_order",
        "estimators._checkpoint",
        "estimators._stored_attributes",
    },
    {
        "estimators._attempts",
        "estimators._combinations",
        "estimators._epochs",
        "estimators._settling",
        "estimators._tasks",
    },
    {"estimators._pieces"},
    {
        "estimators._blocks",
        "estimators._chunks",
        "estimators._nested",
        "estimators._surgery",
        "estimators._views",
        "estimators._saving",
        "estimators._exporting",
        "estimators._pickling",
        "estimators._starting",
    },
    {"estimators._base"},
    {"estimators.shallow", "estimators.deep"},
    {"estimators"},
    {
        "probing",
        "together",
        "explanation",
        "response",
        "region_errors",
        "transformer",
        "loading",
    },
    {"batched_search"},
    {"search"},
    {"inspection"},
    {"plotting._matplotlib"},
    {
        "plotting.curves",
        "plotting.errors",
        "plotting.flow",
        "plotting.learning",
        "plotting.maps",
        "plotting.probes",
        "plotting.response",
        "plotting.usage",
    },
    {"plotting", "model_card"},
    {""},  # skmoe/__init__.py
]
FLOOR_OF = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}

# Import names of the distributions that pyproject.toml names differently.
IMPORT_NAMES = {"scikit-learn": "sklearn"}


def name_of(path: Path) -> str:
    """``skmoe/nn/gates.py`` -> ``nn.gates``."""
    return (
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        .removesuffix("__init__")
        .rstrip(".")
    )


MODULES = {name_of(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
every_module = pytest.mark.parametrize("module", sorted(MODULES))


def imports(nodes) -> set[tuple[str, str]]:
    """``(module, name)`` of each import; the name is empty where the module is imported."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {("." * node.level + (node.module or ""), a.name) for a in node.names}
    return found


def imported_modules(module: str) -> set[str]:
    """Modules of skmoe that this one imports, without the leading ``skmoe.``."""
    found = set()
    for source, name in imports(ast.walk(MODULES[module])):
        if source.partition(".")[0] == "skmoe":
            source = source.removeprefix("skmoe").removeprefix(".")
            submodule = f"{source}.{name}".strip(".")
            found.add(submodule if submodule in MODULES else source)
    return found


def top_level(nodes) -> set[str]:
    return {source.partition(".")[0] for source, _ in imports(nodes)}


def run_at_import(nodes):
    """All statements but those inside functions."""
    for node in nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from run_at_import(ast.iter_child_nodes(node))


@every_module
def test_module_has_a_floor(module):
    assert module in FLOOR_OF, (
        f"skmoe.{module} is new: add {module!r} to a set in FLOORS, tests/test_floors.py, "
        "above all that it imports."
    )


@every_module
def test_module_imports_only_from_lower_floors(module):
    floor = FLOOR_OF.get(module, len(FLOORS))
    too_high = {name for name in imported_modules(module) if FLOOR_OF.get(name, -1) >= floor}
    assert not too_high, f"skmoe.{module} imports from its own floor or higher: {too_high}"


@every_module
def test_imports_are_absolute(module):
    assert not [source for source, _ in imports(ast.walk(MODULES[module])) if source[:1] == "."]


def test_no_module_stands_on_two_floors():
    assert sum(map(len, FLOORS)) == len(FLOOR_OF)


@every_module
def test_module_imports_something_that_exists(module):
    missing = imported_modules(module) - set(MODULES)
    assert not missing


def test_only_the_loop_and_its_monitors_know_skorch():
    users = {name for name, tree in MODULES.items() if "skorch" in top_level(ast.walk(tree))}
    assert users == {"loop", "monitors"}


def test_only_validation_imports_private_names_of_scikit_learn():
    users = {
        name
        for name, tree in MODULES.items()
        for source, imported in imports(ast.walk(tree))
        if source.partition(".")[0] == "sklearn"
        and any(part.startswith("_") for part in [*source.split("."), imported])
    }
    assert users == {"_validation"}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("nn")))
def test_nn_knows_torch_only(module):
    others = top_level(ast.walk(MODULES[module])) - sys.stdlib_module_names
    sorts = {"numpy"} if module == "nn.sorting" else set()  # short operations on the CPU
    assert others <= {"torch", "skmoe", "rtdl_num_embeddings"} | sorts


@pytest.mark.parametrize(
    "module", sorted(name for name in MODULES if name.startswith("datasets"))
)
def test_datasets_know_neither_torch_nor_estimators(module):
    assert not {"torch", "skorch"} & top_level(ast.walk(MODULES[module]))
    assert all(
        name == "_registry" or name.startswith("datasets") for name in imported_modules(module)
    )


@every_module
def test_importing_needs_no_optional_package(module):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [spec.partition(">")[0] for spec in project["dependencies"]]
    known = {IMPORT_NAMES.get(name, name) for name in required} | {"skmoe"}
    used = top_level(run_at_import(MODULES[module].body)) - sys.stdlib_module_names
    assert used <= known, f"Import these inside the function that needs them: {used - known}"


def test_all_packages_are_installed():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")
    }
    assert set(named) == found
