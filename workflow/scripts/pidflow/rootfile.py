"""A ROOT file whose bytes depend on its content alone."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from unittest import mock

import uproot

_WRITTEN = uproot._util.datetime_to_code(datetime(2022, 1, 1))


@contextlib.contextmanager
def recreate(path: str | Path, name: str) -> Iterator[uproot.WritableDirectory]:
    """Open a new ROOT file to write; what ROOT keeps of time and place is the same for every file of this name.

    Parameters
    ----------
    path
        File to write.
    name
        Name from which the file's identifier is made.
    """
    identifier = uuid.uuid5(uuid.NAMESPACE_URL, name)
    # every time stamp passes through this function; a path would be kept, and it is a temporary one
    with (
        mock.patch.object(uproot._util, "datetime_to_code", lambda _: _WRITTEN),
        open(path, "w+b") as stream,
        uproot.recreate(stream, uuid_function=lambda: identifier) as file,
    ):
        yield file
