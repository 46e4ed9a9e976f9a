"""Every public name has a page in the API reference."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import skmoe
from skmoe.estimators._glance import PAGES

DOCS = Path(__file__).parents[2] / "docs"
LISTED = re.findall(r"^   (skmoe[\w.]*)$", (DOCS / "api" / "index.rst").read_text(), re.M)
FOUND = [info.name for info in pkgutil.walk_packages(skmoe.__path__, "skmoe.")]
MODULES = {
    name: importlib.import_module(name)
    for name in ("skmoe", *FOUND)
    if not any(part.startswith("_") for part in name.split("."))
}
# What `__all__` of a public module offers. A page tells of classes and functions only.
OFFERED = [
    (module, name)
    for module, contents in MODULES.items()
    for name in getattr(contents, "__all__", ())
    if name != "__version__"
]


def pages_of(module: str) -> list[str]:
    """Names that the reference has a page for, if the module is listed."""
    contents = MODULES[module]
    own = [name for name in vars(contents) if name[0] != "_"]
    names = getattr(contents, "__all__", None) or [
        name for name in own if getattr(vars(contents)[name], "__module__", None) == module
    ]
    objects = [(name, getattr(contents, name)) for name in names]
    return [name for name, it in objects if inspect.isclass(it) or inspect.isroutine(it)]


def test_names_are_found():
    assert ("skmoe.search", "BatchedGridSearchCV") in OFFERED
    assert len(OFFERED) > 30
    assert set(LISTED) <= set(MODULES)


def test_every_public_name_is_in_the_reference():
    shown = [getattr(MODULES[module], name) for module in LISTED for name in pages_of(module)]
    assert [
        offered
        for offered in OFFERED
        if not any(getattr(MODULES[offered[0]], offered[1]) is it for it in shown)
    ] == []


@pytest.mark.browser
def test_every_page_was_built():
    folder = DOCS / "_build" / "html" / "api" / "generated"
    wanted = [f"{module}.{name}" for module in LISTED for name in pages_of(module)]
    assert [
        name
        for name in wanted
        if not (page := folder / f"{name}.html").exists()
        or f'id="{name}"' not in page.read_text()
    ] == []


@pytest.mark.browser
@pytest.mark.parametrize("page", PAGES.values())
def test_pages_that_notebooks_link_to_were_built(page):
    file, _, place = page.partition("#")
    text = (DOCS / "_build" / "html" / file.strip("/")).read_text()
    assert not place or f'id="{place}"' in text
