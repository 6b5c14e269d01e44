"""A published model's weights, to start another training from."""

from __future__ import annotations

from pathlib import Path

from pidflow.errors import PidflowError
from pidflow.files import replacing
from pidflow.model import MODEL_FILE, read_info
from pidflow.publish.registry import newest, read_document, read_entry


def retrieve_model(source: str | Path, folder: str | Path) -> None:
    """Write the model directory of a published network.

    Parameters
    ----------
    source
        Registry, of which the newest publication is taken, or one entry of it (``<registry>/runs/<run>.json``).
    folder
        Model directory to write.

    Raises
    ------
    PidflowError
        If there is no such publication, or none of a network.
    """
    path = Path(source)
    registry = path if path.is_dir() else path.parents[1]
    entry = newest(registry) if path.is_dir() else read_entry(path) if path.is_file() else None
    if entry is None:
        raise PidflowError(f"{source}: no publication to start from; set 'init_from' to a model, or to null")
    if MODEL_FILE not in entry.documents:
        raise PidflowError(f"{source}: the publication holds no network's weights; set 'init_from' to one that does")
    for name in entry.documents:
        if name == MODEL_FILE or name.endswith(".safetensors"):
            with replacing(Path(folder) / name) as temporary:
                temporary.write_bytes(read_document(registry, entry, name))
    read_info(folder)
