"""Identifiers that stay the same on every machine and whatever other files exist."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the SplitMix64 hash of each value.

    Source: G. Steele, D. Lea, C. Flood, OOPSLA 2014, doi:10.1145/2714064.2660195.
    """
    with np.errstate(over="ignore"):
        z = value + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def text_hash(text: str) -> np.uint64:
    """Return 64 bits of a text's BLAKE2 hash."""
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def collision_ids(source: str, data_frame: int, collision: ArrayLike) -> NDArray[np.uint64]:
    """Return the identifier of collisions, given their row numbers [n] in a data frame of a file."""
    rows = np.asarray(collision, dtype=np.uint64)
    return mix(mix(rows) ^ text_hash(f"{source}\0{data_frame}"))


def uniform(collision_id: NDArray[np.uint64], key: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each collision [n], fixed by the collision and `key`."""
    return (mix(collision_id ^ text_hash(key)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
