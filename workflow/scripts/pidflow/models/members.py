"""What models that are averages of others have in common."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pidflow.files import read_json, write_json
from pidflow.models.base import Floats, Model, ModelSettings

WEIGHTS_FILE = "members.json"

S = TypeVar("S", bound=ModelSettings)


class Members(Model[S]):
    """Weighted average of member models, which lie whole in folders of the model directory.

    ``members.json`` names the folders and each one's weight per species.
    """

    def folder_of(self, name: str) -> Path:
        """Return the folder of a member."""
        return self.folder / "members" / name

    def take(self, name: str, source: Path) -> None:
        """Copy a trained model into the model directory as a member."""
        shutil.copytree(source, self.folder_of(name), ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)

    def write(self, weights: dict[str, NDArray[np.float64]]) -> None:
        """Write ``members.json``: weights [S] by member."""
        write_json(self.folder / WEIGHTS_FILE, {name: [float(w) for w in row] for name, row in weights.items()})

    @cached_property
    def members(self) -> dict[str, tuple[Model[Any], NDArray[np.float32]]]:
        """Member models and their weights float32 [S], by name."""
        from pidflow.models import load

        weights = read_json(self.folder / WEIGHTS_FILE)
        return {
            name: (load(self.folder_of(name), self.threads), np.array(row, np.float32)) for name, row in weights.items()
        }

    def score(self, features: Floats) -> Floats:
        """Return certainties float32 [N, S]."""
        parts = [weight * member.score(features) for member, weight in self.members.values()]
        return np.clip(np.sum(parts, axis=0, dtype=np.float32), 0.0, 1.0)

    def graph(self, number: int) -> Any:
        """Return the ONNX graph of one species."""
        from pidflow.train.graph import average_graph

        pairs = [(member, float(weight[number])) for member, weight in self.members.values() if weight[number] > 0]
        return average_graph([member.graph(number) for member, _ in pairs], [weight for _, weight in pairs])
