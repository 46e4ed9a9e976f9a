"""Files that `load_model` has to refuse, made at random from a good one.

Damage (`truncated`, `flipped`, `zeroed`, `appended`, `noise`) is what disks and networks do;
the digest at the end of a file shows it. `fuzzed` is what a writer does who knows the format
and computes the digest anew; what such a one writes with intent is in `hostile_files`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# Damage


def truncated(data: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """The file, cut short."""
    for length in rng.integers(0, len(data), count):
        yield data[:length]


def flipped(data: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """The file with one bit, or a few, flipped."""
    for _ in range(count):
        bad = bytearray(data)
        for place in rng.choice(len(data), rng.integers(1, 4), replace=False):
            bad[place] ^= 1 << int(rng.integers(8))
        yield bytes(bad)


def zeroed(data: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """The file with a span of 64 bytes set to zero, as where a block was never written."""
    made = 0
    while made < count:
        start = int(rng.integers(len(data) - 1))
        bad = data[:start] + bytes(len(data[start : start + 64])) + data[start + 64 :]
        if bad != data:
            made += 1
            yield bad


def appended(data: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """The file with something after its end."""
    for _ in range(count):
        yield data + rng.bytes(int(rng.integers(1, 200)))


def noise(data: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """Bytes at random."""
    for _ in range(count):
        yield rng.bytes(int(rng.integers(0, len(data))))


DAMAGE: dict[str, Callable[[bytes, np.random.Generator, int], Iterator[bytes]]] = {
    "truncated": truncated,
    "bits flipped": flipped,
    "64 bytes zeroed": zeroed,
    "bytes appended": appended,
    "random bytes": noise,
}


# The work of a writer who knows the format


def opened(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The header, what its metadata tells, and the bytes of all tensors but the digest."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return header, json.loads(header["__metadata__"]["skmoe"]), data[start:-32]


def sealed(header: bytes | dict[str, Any], body: bytes) -> bytes:
    """A file of this header, with the right digest."""
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    start = len(text).to_bytes(8, "little") + text + body
    return start + hashlib.sha256(start).digest()


def told(header: dict[str, Any], envelope: str | dict[str, Any], body: bytes) -> bytes:
    """A file whose metadata tells this."""
    text = envelope if isinstance(envelope, str) else json.dumps(envelope)
    return sealed({**header, "__metadata__": {"skmoe": text}}, body)


WORDS = (
    b"true",
    b"null",
    b"1.0",
    b"-1",
    b"1e999",
    b"NaN",
    b"Infinity",
    b"99999999999999999999",
    b"[]",
    b"{}",
    b"4294967296",
    b'"os"',
    b"[[[[",
    b'\\"__class__\\"',
    b"\xff",
    b"\x00",
)


def fuzzed(data: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """The file with its header changed at random, and the digest computed anew."""
    header, envelope, body = opened(data)
    raw = data[8 : len(data) - len(body) - 32]
    texts = json.dumps(envelope).encode()
    for _ in range(count):
        if rng.random() < 0.5:
            yield sealed(_mutated(raw, rng), body)
        else:
            yield told(header, _mutated(texts, rng).decode("latin-1"), body)


def _mutated(text: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes: a byte, a word put in or in place of a value, a span moved."""
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(len(text)))
        span = int(rng.integers(1, 12))
        word = WORDS[int(rng.integers(len(WORDS)))]
        kind = int(rng.integers(5))
        if kind == 0:
            text = text[:place] + rng.bytes(1) + text[place + 1 :]
        elif kind == 1:
            text = text[:place] + word + text[place:]
        elif kind == 2:
            text = text[:place] + text[place + span :]
        elif kind == 3:
            text = text[:place] + text[place : place + span] * 2 + text[place + span :]
        else:  # the value after the next colon
            colon = text.find(b":", place) + 1
            end = min(
                (e for e in (text.find(c, colon) for c in (b",", b"}")) if e >= 0),
                default=len(text),
            )
            text = text[:colon] + word + text[end:]
        if not text:
            return b"{"
    return text
