"""Plain values <-> JSON with arrays beside it; and values without `Part`, for pickles.

Contract. `Writer.value` turns what parameters and fitted attributes may be into JSON, and puts
arrays and long lists of numbers into `arrays`; `Reader.value` turns it back into equal values
of the same types. JSON's own types stand for themselves, all else is an object with one of
these keys:

=============  ====================================================================
``number``     "nan", "inf" or "-inf"
``tuple``      a list of values
``items``      pairs of a dict
``part``       the name of a `Part`, with ``settings``
``array``      the name of an array
``names``      that of an array which holds a list of texts as JSON
``numbers``    that of an array for a list of numbers; with ``lengths`` one of lists
``records``    how many dicts, with ``columns``: see `Writer.records`
=============  ====================================================================
"""

import json
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

from skmoe._registry import Part
from skmoe.model_file import ModelFileError, check_keys, parse_json

# Shorter lists of numbers stay in the JSON.
LONG = 16
# Levels of values within values.
MAX_DEPTH = 12
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
NUMBERS = {float: np.float64, int: np.int64, bool: np.uint8}
KIND_OF = {np.dtype(stored): kind for kind, stored in NUMBERS.items()}


class Writer:
    """Values to JSON and arrays.

    Examples
    --------
    >>> import numpy as np
    >>> writer = Writer()
    >>> writer.value(("a", np.zeros(3)), "it")
    {'tuple': ['a', {'array': 'it.1'}]}
    >>> writer.arrays
    {'it.1': array([0., 0., 0.])}
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def value(self, value: Any, name: str) -> Any:
        """The value as JSON; `name` is what to call it, and its arrays."""
        if value is None or isinstance(value, bool | str):
            return value if not isinstance(value, str) else str(value)
        if isinstance(value, np.bool):
            return bool(value)
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real):
            number = float(value)
            return number if math.isfinite(number) else {"number": str(number)}
        if isinstance(value, Part):
            settings = {
                key: self.value(setting, f"{name}.{key}")
                for key, setting in value.settings.items()
            }
            return {"part": self.value(value.name, name), "settings": settings}
        if isinstance(value, tuple):
            return {"tuple": self._each(value, name)}
        if isinstance(value, list):
            return self._list(value, name)
        if isinstance(value, dict):
            return {"items": [self._pair(key, one, name) for key, one in value.items()]}
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        raise ValueError(
            f"A model file cannot hold {name}={value!r:.200}: it stores plain values and parts "
            "by name, and nothing that would have to be run to be read. pickle is the "
            "alternative, for files that nobody else can write."
        )

    def array(self, array: np.ndarray, name: str) -> str:
        """Keep an array under this name, or a longer one if it is taken."""
        stored = array.astype(np.uint8) if array.dtype == np.bool else array
        if stored.dtype not in KIND_OF and stored.dtype != np.float32:
            raise ValueError(f"A model file cannot hold {name} of type {array.dtype}.")
        while name in self.arrays:
            name += "'"
        self.arrays[name] = stored
        return name

    def _each(self, values: Iterable[Any], name: str) -> list[Any]:
        return [self.value(one, f"{name}.{index}") for index, one in enumerate(values)]

    def _pair(self, key: Any, value: Any, name: str) -> list[Any]:
        if not isinstance(key, str | Part):
            # The key is what a reader would look for, so the error names it.
            raise ValueError(f"A model file cannot hold {name}={{{key!r:.200}: ...}}.")
        label = key if isinstance(key, str) else key.name
        return [self.value(key, name), self.value(value, f"{name}.{label}")]

    def _array(self, array: np.ndarray, name: str) -> dict[str, str]:
        if array.dtype == object and all(isinstance(one, str) for one in array):
            text = json.dumps([str(one) for one in array]).encode()
            return {"names": self.array(np.frombuffer(text, np.uint8), name)}
        if array.dtype == np.bool:
            raise ValueError(f"A model file cannot hold {name}, an array of bool.")
        return {"array": self.array(array, name)}

    def _list(self, values: list[Any], name: str) -> Any:
        numbers = _as_array(values) if len(values) > LONG else None
        if numbers is not None and numbers.ndim == 1:
            return {"numbers": self.array(numbers, name)}
        if values and all(isinstance(one, dict) for one in values):
            return self.records(values, name)
        if values and all(isinstance(one, list) for one in values):
            flat = [number for one in values for number in one]
            numbers = _as_array(flat) if len(flat) > LONG else None
            if numbers is not None and numbers.ndim == 1:
                lengths = np.array([len(one) for one in values])
                return {
                    "numbers": self.array(numbers, name),
                    "lengths": self.array(lengths, f"{name}.lengths"),
                }
        return self._each(values, name)

    def records(self, records: list[dict[str, Any]], name: str) -> dict[str, Any]:
        """Dicts that mostly have the same keys: an array for each key.

        A column has its `key`, the `rows` that have it, either ``[first, end]`` or the name of
        an array, and `numbers`, the name of an array with a row for each, or else `values`.
        """
        keys = dict.fromkeys(key for record in records for key in record)
        columns = [
            self._column(key, records, f"{name}.{index}") for index, key in enumerate(keys)
        ]
        return {"records": len(records), "columns": columns}

    def _column(self, key: Any, records: list[dict[str, Any]], name: str) -> dict[str, Any]:
        if not isinstance(key, str):
            raise ValueError(f"A model file cannot hold {name}={{{key!r:.200}: ...}}.")
        rows = [row for row, record in enumerate(records) if key in record]
        column: dict[str, Any] = {"key": key, "rows": [rows[0], rows[-1] + 1]}
        if len(rows) < rows[-1] + 1 - rows[0]:
            column["rows"] = self.array(np.array(rows), f"{name}.rows")
        values = [records[row][key] for row in rows]
        if (numbers := _as_array(values)) is not None:
            return {**column, "numbers": self.array(numbers, name)}
        return {**column, "values": self._each(values, name)}


def _as_array(values: list[Any]) -> np.ndarray | None:
    """Numbers of one type, in lists of one shape, as an array; None if they are not that."""
    kinds = set(map(type, values))
    if kinds == {list}:
        rows = [_as_array(one) for one in values]
        alike = {None if row is None else (row.dtype, row.shape) for row in rows}
        return None if len(alike) > 1 or None in alike else np.array(rows)
    if len(kinds) != 1 or not kinds <= set(NUMBERS):
        return None
    (kind,) = kinds
    if kind is int and not all(-(2**63) <= value < 2**63 for value in values):
        return None
    return np.array(values, dtype=NUMBERS[kind])


class Reader:
    """JSON and arrays back to values. Every array is used exactly once."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = dict(arrays)

    def take(self, name: Any) -> np.ndarray:
        """The array of this name, which nobody else gets."""
        if not isinstance(name, str) or name not in self.arrays:
            raise ModelFileError(f"The file lacks the array {name!r:.80}.")
        return self.arrays.pop(name)

    def finish(self) -> None:
        """Refuse arrays that nobody asked for."""
        if self.arrays:
            raise ModelFileError(f"The file has unknown arrays: {sorted(self.arrays)!r:.200}.")

    def value(self, stored: Any, depth: int = 0) -> Any:
        """The value that this JSON stands for."""
        if depth > MAX_DEPTH:
            raise ModelFileError(f"Values must be nested at most {MAX_DEPTH} deep.")
        if isinstance(stored, list):
            return [self.value(one, depth + 1) for one in stored]
        if not isinstance(stored, dict):
            return stored
        for key, read in self._readers().items():
            if key in stored:
                return read(stored, depth + 1)
        raise ModelFileError(f"A value has unknown keys: {sorted(stored)!r:.200}.")

    def _readers(self) -> dict[str, Callable[[dict[str, Any], int], Any]]:
        return {
            "number": self._number,
            "tuple": self._tuple,
            "items": self._dict,
            "part": self._part,
            "array": self._array,
            "names": self._names,
            "numbers": self._numbers,
            "records": self._records,
        }

    def _number(self, stored: dict[str, Any], depth: int) -> float:
        check_keys("A number", stored, {"number"})
        if not isinstance(stored["number"], str) or stored["number"] not in NOT_FINITE:
            raise ModelFileError(f"A number must be one of {sorted(NOT_FINITE)}.")
        return NOT_FINITE[stored["number"]]

    def _tuple(self, stored: dict[str, Any], depth: int) -> tuple[Any, ...]:
        check_keys("A tuple", stored, {"tuple"})
        return tuple(self.value(_list("A tuple", stored["tuple"]), depth))

    def _dict(self, stored: dict[str, Any], depth: int) -> dict[str, Any]:
        check_keys("A dict", stored, {"items"})
        found: dict[Any, Any] = {}
        for pair in _list("The items of a dict", stored["items"]):
            if not isinstance(pair, list) or len(pair) != 2:
                raise ModelFileError("The items of a dict must be pairs.")
            key = self.value(pair[0], depth)
            if not isinstance(key, str | Part) or key in found:
                raise ModelFileError("Keys must be texts or parts, and differ.")
            found[key] = self.value(pair[1], depth)
        return found

    def _part(self, stored: dict[str, Any], depth: int) -> Part:
        check_keys("A part", stored, {"part", "settings"})
        if not isinstance(stored["part"], str) or not isinstance(stored["settings"], dict):
            raise ModelFileError("A part must have a name and settings.")
        part = Part(stored["part"])
        part.settings = {
            key: self.value(setting, depth) for key, setting in stored["settings"].items()
        }
        return part

    def _array(self, stored: dict[str, Any], depth: int) -> np.ndarray:
        check_keys("An array", stored, {"array"})
        return self.take(stored["array"])

    def _names(self, stored: dict[str, Any], depth: int) -> np.ndarray:
        check_keys("Names", stored, {"names"})
        names = parse_json(self.take(stored["names"]).tobytes())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ModelFileError("Names must be texts.")
        return np.array(names, dtype=object)

    def _numbers(self, stored: dict[str, Any], depth: int) -> list[Any]:
        with_lengths = {"numbers", "lengths"} if "lengths" in stored else {"numbers"}
        check_keys("Numbers", stored, with_lengths)
        numbers = _as_list(self.take(stored["numbers"]), 1)
        if "lengths" not in stored:
            return numbers
        lengths = _as_list(self.take(stored["lengths"]), 1)
        if any(type(n) is not int or n < 0 for n in lengths) or sum(lengths) != len(numbers):
            raise ModelFileError("Lengths of lists must add up to their numbers.")
        ends = np.cumsum(lengths, dtype=np.int64).tolist()
        return [numbers[end - n : end] for n, end in zip(lengths, ends, strict=True)]

    def _records(self, stored: dict[str, Any], depth: int) -> list[dict[str, Any]]:
        check_keys("Records", stored, {"records", "columns"})
        read = [self._column(one, depth) for one in _list("Columns", stored["columns"])]
        count = stored["records"]
        # No record is empty: so there are no more of them than values.
        if type(count) is not int or not 0 <= count <= sum(len(rows) for _, rows, _ in read):
            raise ModelFileError(f"records must count them. Got {count!r:.80}.")
        records: list[dict[str, Any]] = [{} for _ in range(count)]
        for key, rows, values in read:
            for row, value in zip(rows, values, strict=True):
                if type(row) is not int or not 0 <= row < count or key in records[row]:
                    raise ModelFileError(f"Rows of {key!r:.80} must differ and be records.")
                records[row][key] = value
        return records

    def _column(self, stored: Any, depth: int) -> tuple[str, list[int], list[Any]]:
        given = "numbers" if isinstance(stored, dict) and "numbers" in stored else "values"
        check_keys("A column", stored, {"key", "rows", given})
        if not isinstance(stored["key"], str):
            raise ModelFileError("The key of a column must be a text.")
        if given == "numbers":
            values = _as_list(self.take(stored["numbers"]))
        else:
            values = self.value(_list("Values", stored["values"]), depth)
        rows = stored["rows"]
        if isinstance(rows, str):
            rows = _as_list(self.take(rows), 1)
        elif isinstance(rows, list) and len(rows) == 2 and set(map(type, rows)) == {int}:
            # Compared before it is made: there is no limit to the size of a range.
            rows = range(*rows) if rows[1] - rows[0] == len(values) else []
        else:
            raise ModelFileError("Rows must be a first one and an end, or an array.")
        if len(rows) != len(values):
            raise ModelFileError(f"{stored['key']!r:.80} must have a value for each row.")
        return stored["key"], list(rows), values


def _list(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ModelFileError(f"{what} must be a list. Got {type(value).__name__}.")
    return value


def _as_list(array: np.ndarray, ndim: int | None = None) -> list[Any]:
    """Numbers of the type that was stored."""
    kind = KIND_OF.get(array.dtype)
    if kind is None or array.ndim == 0 or ndim not in (None, array.ndim):
        raise ModelFileError(f"Numbers came as {array.dtype} of shape {array.shape}.")
    if kind is bool:
        if (array > 1).any():
            raise ModelFileError("Truth values must be 0 or 1.")
        array = array.astype(bool)
    return array.tolist()


def without_parts(value: Any) -> Any:
    """The value with each `Part` as a dict of its name and settings.

    What travels in a pickle then is made of Python's and numpy's types only, whatever the
    package that unpickles it, as skops, is asked to trust.
    """
    if isinstance(value, Part):
        return {"part": value.name, "settings": without_parts(value.settings)}
    if isinstance(value, dict):
        if any(isinstance(key, Part) for key in value):
            return {"items": [[without_parts(k), without_parts(v)] for k, v in value.items()]}
        return {key: without_parts(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(without_parts(one) for one in value)
    return value


def with_parts(value: Any) -> Any:
    """The value that `without_parts` was given."""
    if isinstance(value, dict):
        if value.keys() == {"part", "settings"}:
            part = Part(value["part"])
            part.settings = with_parts(value["settings"])
            return part
        if value.keys() == {"items"}:
            return {with_parts(key): with_parts(one) for key, one in value["items"]}
        return {key: with_parts(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(with_parts(one) for one in value)
    return value
