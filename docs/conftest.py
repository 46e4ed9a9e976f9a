"""Of this folder the test suite runs the examples in Markdown; `make docs` runs the rest."""

import pytest

collect_ignore_glob = ["*.py", "_build/*", "gallery/*", "api/generated/*"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Examples that write files write them there."""
    monkeypatch.chdir(tmp_path)
