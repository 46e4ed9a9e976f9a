"""The README's examples run."""

import re
from pathlib import Path

import pytest

from skmoe.estimators import _auto

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example, monkeypatch):
    # What is tested is that names and calls are right, not how well a long fit does.
    monkeypatch.setattr(_auto, "max_epochs", lambda setting, *sizes: 1)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102


def test_first_screen_shows_the_two_commands():
    first_screen = README.splitlines()[:40]
    assert any(line.startswith("make demo") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)
