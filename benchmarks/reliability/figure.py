"""One promise, and how often it held."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A promise that was put to the test `tried` times and `kept` so often."""

    promise: str
    kept: int
    tried: int
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.tried > 0 and self.kept == self.tried
