"""What every model has in common: its settings, and how it is fitted, scores tracks and becomes an ONNX graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pidflow.blocks import Block
from pidflow.errors import PidflowError

if TYPE_CHECKING:
    from pidflow.model import ModelInfo

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Tracks:
    """A set of labelled tracks.

    Attributes
    ----------
    features
        float32 [N, F], NaN where missing.
    labels
        uint8 [N, S], 1 where the track is of the species.
    weights
        float32 [N], how much each track counts, mean 1; None: all the same.
    """

    features: Floats
    labels: NDArray[np.uint8]
    weights: Floats | None = None

    def __len__(self) -> int:
        return len(self.features)

    def complete(self) -> Tracks:
        """Return the tracks that lack no feature."""
        rows = ~np.isnan(self.features).any(axis=1)
        return Tracks(self.features[rows], self.labels[rows], None if self.weights is None else self.weights[rows])


class ModelSettings(Block):
    """An entry of ``models`` in the configuration.

    A subclass fixes its ``kind`` as ``kind: Literal["name"] = "name"``, after the file that it lies in.
    """

    kind: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of other models of the run that must be fitted first."""
        return ()


@dataclass(frozen=True)
class Fitting:
    """What a fit may use beside its tracks.

    Attributes
    ----------
    threads
        Threads.
    accelerator
        ``auto``, ``cpu`` or ``cuda``.
    checkpoint
        File from which a killed training goes on; removed by a training that ends.
    response
        Response fitted to the run (`pidflow.dataset.response`).
    needed
        Model directories of the models named by `ModelSettings.needs`, by name.
    start
        Model directory whose weights a network starts from, or None.
    """

    threads: int
    checkpoint: Path
    accelerator: str = "cpu"
    response: Path | None = None
    needed: Mapping[str, Path] = field(default_factory=dict)
    start: Path | None = None


S = TypeVar("S", bound=ModelSettings)


class Model(ABC, Generic[S]):
    """One model of one run; all that it knows lies in its model directory.

    Parameters
    ----------
    info
        Description: species, features, masks, seed, settings.
    folder
        Its model directory.
    threads
        Threads that scoring may use.

    Attributes
    ----------
    exported
        Whether it can become an ONNX graph and so be published.
    has_spread
        Whether it knows the uncertainty of its certainties.
    is_network
        Whether it is a network, trained in steps, with a learning curve and weights that another can start from.
    """

    Settings: ClassVar[type[ModelSettings]]
    exported: ClassVar[bool] = True
    has_spread: ClassVar[bool] = False
    is_network: ClassVar[bool] = False

    def __init__(self, info: ModelInfo, folder: str | Path, threads: int = 1) -> None:
        self.info, self.folder, self.threads = info, Path(folder), threads
        self.settings: S = self.Settings.model_validate(info.settings)  # type: ignore[assignment]

    @classmethod
    def columns(cls, selected: Sequence[str], species: Sequence[int]) -> tuple[str, ...]:
        """Return the dataset columns that it reads; by default the selected features."""
        return tuple(selected)

    @abstractmethod
    def fit(self, train: Tracks, validation: Tracks, fitting: Fitting) -> None:
        """Fit to labelled tracks and write everything but ``model.json`` into the model directory."""

    def prepare(self, dataset: str | Path) -> None:
        """Look at the sample that is to be scored, without its labels, before the first call of `score`."""

    @abstractmethod
    def score(self, features: Floats) -> Floats:
        """Return certainties float32 [N, S] of raw features float32 [N, F] with NaN where a value is missing.

        NaN where the method cannot score a track.
        """

    def spread(self, features: Floats) -> Floats:
        """Return the uncertainty of the certainties, float32 [N, S], if ``has_spread``."""
        raise PidflowError(f"{self.folder}: a model of kind '{self.info.kind}' has no uncertainty; ask for certainties")

    def graph(self, number: int) -> Any:
        """Return the ONNX graph of one species, by its position in ``info.species``.

        Input ``features`` float32 [n, F] as for `score`, output ``certainty`` float32 [n, 1], finite
        for any input: 0 for a track that the method cannot score.
        """
        raise PidflowError(
            f"{self.folder}: a model of kind '{self.info.kind}' has no ONNX graph; publish another model"
        )
