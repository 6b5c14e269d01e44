"""The ``metaData`` map of AO2D files: what the file says of itself, against the run table."""

from __future__ import annotations

import struct
from typing import Any

from pidflow.errors import PidflowError
from pidflow.ingest.reader import Request
from pidflow.ingest.rootfile import top_keys

_HEADER = 6
_TOBJECT = 10
_TAG = 8
_NEW_CLASS = 0xFFFFFFFF
_REFERENCED = 1 << 4
_UNSTATED = ("", "unknown", "none")


def read_map(handle: Any, name: str) -> dict[str, str]:
    """Return a ``TMap`` of strings at the top of an open ROOT file, empty if there is none.

    Format: ROOT ``TMap::Streamer`` (name, number of pairs, keys and values as objects) and
    ``TObjString``; big-endian, strings with one byte of length or 255 and four.
    """
    if name not in top_keys(handle):
        return {}
    chunk, cursor = handle.key(name).get_uncompressed_chunk_cursor()
    data = chunk.get(cursor.index, chunk.stop, cursor, {}).tobytes()
    _, position = _string(data, _HEADER + _TOBJECT)
    (pairs,) = struct.unpack_from(">i", data, position)
    position += 4
    content: dict[str, str] = {}
    for _ in range(pairs):
        key, position = _string_object(data, position)
        content[key], position = _string_object(data, position)
    return content


def _string(data: bytes, position: int) -> tuple[str, int]:
    length, start = data[position], position + 1
    if length == 255:
        (length,) = struct.unpack_from(">I", data, start)
        start += 4
    if start + length > len(data):
        raise ValueError("a string of the map ends beyond it")
    return data[start : start + length].decode("utf-8", "replace"), start + length


def _string_object(data: bytes, position: int) -> tuple[str, int]:
    (tag,) = struct.unpack_from(">I", data, position + 4)
    position += _TAG
    if tag == _NEW_CLASS:
        position = data.index(b"\0", position) + 1
    position += _HEADER
    (bits,) = struct.unpack_from(">I", data, position + 6)
    return _string(data, position + _TOBJECT + (2 if bits & _REFERENCED else 0))


def check_metadata(handle: Any, request: Request) -> None:
    """Check what a file says of itself against the run table; what it leaves open is not checked.

    Parameters
    ----------
    handle
        Open AO2D file.
    request
        What it must agree with.

    Raises
    ------
    PidflowError
        If the data type, the reconstruction pass or the period differs.
    """
    said = {key: value for key, value in read_map(handle, "metaData").items() if value.lower() not in _UNSTATED}
    kind = said.get("DataType", "").upper()
    if kind in ("MC", "RAW") and (kind == "MC") != request.simulation:
        column, other = ("simulation", "data") if kind == "MC" else ("data", "simulation")
        raise PidflowError(
            f"{request.path}: metaData says DataType {kind}; list the file under '{column}', not '{other}'"
        )
    anchored = request.simulation and ("AnchorPassName" in said or "AnchorProduction" in said)
    keys = ("AnchorPassName", "AnchorProduction") if anchored else ("RecoPassName", "LPMProductionTag")
    if request.simulation and not anchored:
        return
    for key, column, expected in zip(keys, ("pass", "period"), (request.recopass, request.period), strict=True):
        if key in said and said[key] != expected:
            raise PidflowError(
                f"{request.path}: metaData says {key} {said[key]}, the run table {column} {expected}; correct "
                f"'{column}' in the run table, or list the file under its own run"
            )
