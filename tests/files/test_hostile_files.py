"""Nothing but an estimator comes out of a file, and nothing in it is run."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from saved import KINDS, QUICK, quiet
from small import make

import skmoe
from benchmarks.reliability import bad_files, hostile_files
from skmoe import (
    ModelFileError,
    inspect_model,
    load_model,
)
from skmoe.nn.networks import MoENetwork
from skmoe.stored_model import _check_values

pytestmark = quiet


# What is not loaded


@pytest.mark.parametrize("function", [load_model, inspect_model], ids=["load", "inspect"])
def test_every_truncation_is_refused(good, loads, function):
    for length in range(len(good)):
        with pytest.raises(ModelFileError):
            loads(good[:length], function)


def test_every_flipped_bit_is_refused(good):
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            with pytest.raises(ModelFileError):
                skmoe.model_file.from_bytes(bytes(bad))


@pytest.mark.parametrize("kind", bad_files.DAMAGE)
def test_damage_is_refused(good, loads, kind):
    rng = np.random.default_rng(0)
    for bad in bad_files.DAMAGE[kind](good, rng, 100):
        with pytest.raises(ModelFileError):
            loads(bad)


def outcomes(files, load):
    """Names of files that were loaded, and of those that failed otherwise than they should."""
    loaded, failed = [], {}
    for name, data in files:
        try:
            load(data)
        except ModelFileError:
            continue
        except Exception as error:
            failed[name] = repr(error)
        else:
            loaded.append(name)
    return loaded, failed


def test_hostile_files_are_refused(good, loads, tmp_path):
    canary = tmp_path / "canary"
    files = list(hostile_files.hostile(good, canary))
    assert len(files) > 250
    assert outcomes(files, loads) == ([], {})
    assert not canary.exists()


def test_no_file_makes_an_inspection_fail_otherwise(good, loads, tmp_path):
    files = hostile_files.hostile(good, tmp_path / "canary")
    _, failed = outcomes(files, lambda data: loads(data, inspect_model))
    assert failed == {}


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_without_end_are_refused_soon(kind, problem, tmp_path, loads):
    X, y = problem
    make(kind, **QUICK).fit(X, y).save_model(tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    _, envelope, _ = bad_files.opened(data)
    arguments = dict(envelope["config"]["model"]["arguments"]["items"])
    sizes = [name for name, value in arguments.items() if type(value) is int]
    assert len(sizes) > 4
    more = ("n_layers", "n_dense", "model_dim", "block_outputs", "n_factors")
    for name in {*sizes, *more}:
        for size in (2**62, 10**9, 60_000):
            with pytest.raises(ModelFileError):
                loads(hostile_files.reargued(data, name, size))


def test_what_is_fuzzed_is_refused_or_sound(good, loads, problem):
    X, _ = problem

    def load(data):
        assert np.isfinite(loads(data).predict(X)).all()

    rng = np.random.default_rng(0)
    files = ((str(i), bad) for i, bad in enumerate(bad_files.fuzzed(good, rng, 1000)))
    loaded, failed = outcomes(files, load)
    assert failed == {}
    assert len(loaded) < 50  # where a seed or a rate was changed to another one, or nothing


WATCHED = """
import sys, warnings
from pathlib import Path
from benchmarks.reliability import hostile_files
from skmoe import ModelFileError, load_model
warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
good = folder / "good.skmoe"
load_model(good)
files = list(hostile_files.hostile(good.read_bytes(), folder / "canary"))
seen = []
EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen",
          "pickle.find_class", "socket.connect", "exec", "compile", "import", "ctypes.dlopen",
          "os.remove", "os.rename", "os.mkdir")
# The standard library reads signatures of built-in functions by parsing them.
KNOWN = "(b'def foo(self, *args, **kwargs): pass', '<unknown>')"
def watch(event, args):
    if event in EVENTS and str(args) != KNOWN:
        seen.append((event, str(args)[:200]))
sys.addaudithook(watch)
for name, data in files:
    path = folder / "bad.skmoe"
    path.write_bytes(data)
    try:
        load_model(path)
    except ModelFileError:
        continue
    print("loaded", name)
print(len(files), seen)
"""


def test_nothing_runs_and_nothing_is_imported(good, tmp_path):
    (tmp_path / "good.skmoe").write_bytes(good)
    command = [sys.executable, "-c", WATCHED, str(tmp_path)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    count, _, seen = done.stdout.partition(" ")
    assert int(count) > 250
    assert seen.strip() == "[]"
    assert not (tmp_path / "canary").exists()


# What does not go with a promise that nothing is run.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml"}
HARMLESS = {"pickle.PicklingError"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "globals"}


def test_the_package_has_no_code_that_runs_what_it_reads():
    root = Path(skmoe.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
                imported = [name for name in imported if name not in HARMLESS]
            tops = {name.partition(".")[0] for name in imported}
            if tops & FORBIDDEN_MODULES:
                found.append(f"{path}: import {imported}")
            if {"importlib", "importlib.import_module"} & set(
                imported
            ) and path.name != "_optional.py":
                found.append(f"{path}: import {imported}")
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in FORBIDDEN_CALLS or called in ("torch.load", "torch.jit.load"):
                    found.append(f"{path}: {called}")
                safely = {"allow_pickle=False"} & {ast.unparse(word) for word in node.keywords}
                if called in ("np.load", "numpy.load") and not safely:
                    found.append(f"{path}: {called}")
    assert not found


def test_optional_packages_are_named_in_the_code():
    """`import_optional` imports what a literal says, never what data say."""
    root = Path(skmoe.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "import_optional":
                assert isinstance(node.args[0], ast.Constant), path


@pytest.mark.parametrize(("gate", "name"), [("region", "region_ids"), ("patch", "expert_ids")])
def test_regions_of_experts_that_there_are_not_are_refused(gate, name):
    network = MoENetwork(2, 1, n_experts=3, gate=gate)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    _check_values(weights, network)
    ids = next(key for key in weights if name in key)
    with pytest.raises(ModelFileError, match=f"{name}.* must be counted from 0"):
        _check_values({**weights, ids: weights[ids] + 3}, network)
