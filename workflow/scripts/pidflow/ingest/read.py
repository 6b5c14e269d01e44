"""One entry for every input format."""

from __future__ import annotations

from pathlib import Path

from pidflow.config.models import Ingest
from pidflow.ingest.table import write_tracks


def ingest_file(
    path: str | Path, output: str | Path, *, source: str, run: int, bz: float, simulation: bool, settings: Ingest
) -> dict[str, int]:
    """Read one input file into a track table.

    Parameters
    ----------
    path, output
        Input file and Parquet file to write.
    source
        Name of the file in the run table.
    run, bz
        Run number and magnetic field in kG.
    simulation
        Whether the file belongs to the run's simulation.
    settings
        The ``ingest`` block of the configuration.

    Returns
    -------
    dict
        What was read and dropped.

    Raises
    ------
    PidflowError
        If the file is unusable; nothing is left under `output`.
    """
    if settings.format == "ao2d":
        from pidflow.ingest.ao2d import Ao2dFile

        ao2d = Ao2dFile(path, source=source, run=run, bz=bz, simulation=simulation)
        write_tracks(ao2d.tables(), output, path, ao2d.counts)
        return ao2d.counts
    from pidflow.ingest.flat import FlatFile

    flat = FlatFile(path, source=source, run=run, settings=settings, simulation=simulation)
    write_tracks(flat.tables(), output, path, flat.counts)
    return flat.counts
