"""What every script does around its one call: a log, one clear sentence on failure, a record on success."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pidflow.errors import PidflowError
from pidflow.record import Clock, write_record


class _Tee:
    """A text stream that writes to two."""

    def __init__(self, first: TextIO, second: TextIO) -> None:
        self._streams = (first, second)

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run the block with all output in the job's log (`logged`); then write the job's record.

    The record of an earlier job is removed first, so that one lies only beside the outputs that it describes.

    Parameters
    ----------
    snakemake
        The object of that name in a script; its first log is the log, the one named ``record`` the record.
    """
    clock, record, params = Clock(), Path(snakemake.log.record), dict(snakemake.params.items())
    record.unlink(missing_ok=True)
    with logged(snakemake.log[0]):
        yield
        write_record(
            record,
            rule=snakemake.rule,
            script=" ".join([Path(sys.modules["__main__"].__file__ or "").name, *params.get("kinds", ())]),
            wildcards=dict(snakemake.wildcards.items()),
            inputs=snakemake.input,
            outputs=snakemake.output,
            params=params,
            threads=snakemake.threads,
            # the temporary folder is the node's own matter, what starts with _ the engine's
            requested={
                name: value for name, value in snakemake.resources.items() if name[0] != "_" and name != "tmpdir"
            },
            clock=clock,
        )


@contextlib.contextmanager
def logged(log: str | Path) -> Iterator[None]:
    """Run the block with all output in a log.

    What Python prints on stdout goes to the log and to the terminal; everything else, that of
    compiled libraries included, to the log alone. An exception ends the process with exit code 1:
    a `PidflowError` as its one sentence, any other with its traceback in the log.

    Parameters
    ----------
    log
        Log file; its folder is made.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(log, "w", encoding="utf-8", buffering=1) as stream, os.fdopen(os.dup(2), "w", buffering=1) as terminal:
        saved = os.dup(1), os.dup(2)
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        try:
            with contextlib.redirect_stdout(_Tee(stream, terminal)):
                yield
        except PidflowError as error:
            _fail(f"error: {error}", stream, terminal)
        except Exception as error:
            traceback.print_exc(file=stream)
            _fail(f"error: {type(error).__name__}: {error} (traceback in {log})", stream, terminal)
        finally:
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


def _fail(message: str, *streams: TextIO) -> None:
    for stream in streams:
        print(message, file=stream, flush=True)
    sys.exit(1)
