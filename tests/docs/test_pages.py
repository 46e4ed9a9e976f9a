"""Examples on the pages of the documentation are doctests, so that they are run and checked."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
# Results are written by scripts, and experiments are a diary.
WRITTEN = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if path.relative_to(DOCS).parts[0] not in ("results", "development", "gallery", "_build")
]


def test_pages_are_found():
    assert DOCS / "index.md" in WRITTEN
    assert len(WRITTEN) > 10


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_every_block_of_python_is_run(page):
    blocks = re.findall(r"^```(python|pycon)\n(.*?)^```", page.read_text(), re.M | re.S)
    for _, block in blocks:
        assert block.startswith(">>> "), f"not a doctest:\n{block}"
        # Else doctest takes the fence for a part of what is expected.
        assert block.endswith("\n\n"), f"no empty line before the fence:\n{block}"
