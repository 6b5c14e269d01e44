"""Opening of ROOT files, damage told in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uproot
from uproot.source.file import MultithreadedFileSource

from pidflow.errors import PidflowError


@contextlib.contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what uproot raises on damaged files into a `PidflowError` that names the file."""
    try:
        yield
    except (PidflowError, NameError, ImportError):  # told already, or no fault of the file
        raise
    except Exception as error:  # damage shows as many exception types, struct.error and KeyError among them
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0][:120]
        raise PidflowError(f"{path}: damaged or truncated file ({reason}); transfer or produce it again") from error


class RootFile:
    """A local ROOT file, opened when it is first asked for.

    Caches are off and the file is not mapped into memory, so that memory does not grow with the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: Any = None

    def handle(self) -> Any:
        """Return the open file.

        Raises
        ------
        PidflowError
            If the file cannot be opened or is shorter than its header says: one that lost its end can
            still be read where the lost bytes belong to columns that nobody asks for.
        """
        if self._handle is None:
            with damage_told(self.path):
                handle = uproot.open(
                    self.path,
                    handler=MultithreadedFileSource,
                    num_workers=1,
                    object_cache=None,
                    array_cache=None,
                )
                size, expected = self.path.stat().st_size, handle.file.fEND
                if size < expected:
                    handle.close()
                    raise PidflowError(
                        f"{self.path}: damaged or truncated file ({size} of {expected} bytes); transfer it again"
                    )
            self._handle = handle
        return self._handle

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            self._handle.close()


def top_keys(handle: Any) -> set[str]:
    """Return the names at the top of a file or folder, without cycle numbers."""
    return set(handle.keys(recursive=False, cycle=False))
