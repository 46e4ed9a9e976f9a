"""The machine and the versions behind a number: ``print(describe())``."""

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

MISSING = "not installed"
PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "skorch",
    "skmoe",
    "lightgbm",
    "xgboost",
)
# Named only where they are installed.
OPTIONAL = ("catboost", "pytabkit")
# Packages that are installed under more than one name.
ALIASES = {"xgboost": ("xgboost", "xgboost-cpu")}


def versions() -> dict[str, str]:
    """Version of Python and of each package, `MISSING` where there is none."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        found[package] = _version(ALIASES.get(package, (package,)))
    optional = {package: _version((package,)) for package in OPTIONAL}
    return found | {k: v for k, v in optional.items() if v != MISSING}


def _version(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return MISSING


def machine() -> dict[str, str]:
    """CPU, cores, memory, operating system and GPU."""
    found = {
        "cpu": _cpu_name(),
        "cores": f"{usable_cores()} of {os.cpu_count()}",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    return found | _gpu()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads() -> int:
    """``OMP_NUM_THREADS`` where it is set, else all usable cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else usable_cores()


def set_threads(n_threads: int) -> None:
    """Give every library of this process the same number of threads."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(n_threads)
    # Held for the life of the process: the limits are undone when the object is.
    threadpool_limits(n_threads)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if match:
            return match.group(1)
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "unknown"
    return f"{total / 2**30:.0f} GiB"


def _gpu() -> dict[str, str]:
    import torch

    if not torch.cuda.is_available():
        return {}
    return {"gpu": torch.cuda.get_device_name()}


def record(threads: int | None = None) -> dict[str, str]:
    """Machine, threads and versions as one flat dict, to be kept beside results."""
    threads = default_threads() if threads is None else threads
    return machine() | {"threads": str(threads)} | versions()


def describe(recorded: dict[str, str] | None = None) -> str:
    """The record as two lines of Markdown.

    Parameters
    ----------
    recorded : dict, optional
        A `record` of an earlier run. By default that of this process.
    """
    recorded = record() if recorded is None else recorded
    programs = ("python", *PACKAGES, *OPTIONAL)
    machine_line = ", ".join(f"{k} {v}" for k, v in recorded.items() if k not in programs)
    version_line = ", ".join(f"{k} {recorded[k]}" for k in programs if k in recorded)
    return f"- Machine: {machine_line}\n- Versions: {version_line}"


if __name__ == "__main__":
    sys.stdout.write(describe() + "\n")
