"""What every step of adaptation has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pidflow.adapt.means import Means
from pidflow.blocks import Block, Count, Positive

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from torch import Tensor, nn

    from pidflow.models.base import Floats, Tracks


class StepSettings(Block):
    """An entry of ``adapt.steps`` in the configuration.

    A subclass fixes its ``kind`` as ``kind: Literal["name"] = "name"``, after the file that it lies in.
    """

    kind: str


class TrainingStepSettings(StepSettings):
    """Settings of any step that trains a network further."""

    epochs: Count = Field(8, description="passes over the simulated training set")
    learning_rate: Positive = Field(5e-4, description="peak learning rate")


@dataclass(frozen=True)
class Surroundings:
    """What a sample step may look at beside the two samples.

    Attributes
    ----------
    run
        Run number.
    species
        PDG code per certainty.
    masks
        Momentum below which a detector is hidden, GeV/c, by detector.
    response
        Response fitted to the run's simulation (`pidflow.dataset.response`).
    seed
        Seed of every random choice.
    """

    run: int
    species: tuple[int, ...]
    masks: Mapping[str, float]
    response: Path
    seed: int


class SampleStep(ABC):
    """Makes the simulated sample look like the run's data, before any model is trained.

    Parameters
    ----------
    settings
        Its entry of the configuration.
    """

    Settings: ClassVar[type[StepSettings]]

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def fit(self, simulation: Path, data: Path, surroundings: Surroundings) -> dict[str, Any]:
        """Compare training tracks of both samples and return what was found, of plain values for JSON.

        Parameters
        ----------
        simulation
            Labelled dataset (`pidflow.tracks.DATASET_COLUMNS`, and perhaps a column ``weight``).
        data
            Dataset of the run's data; its truth columns are null, and are not read.
        surroundings
            What else may be looked at.
        """

    @abstractmethod
    def apply(self, table: pa.Table, random: np.random.Generator) -> pa.Table:
        """Return simulated tracks of any set, changed as the fit found; rows stay in place.

        A column ``weight`` (float32) may be added, or multiplied into one that is there.
        """

    def varied(self, random: np.random.Generator) -> SampleStep | None:
        """Return a step whose findings are drawn within their errors; None if it knows no errors."""
        return None


@dataclass(frozen=True)
class Sizes:
    """What a training step must know to build networks of its own.

    Attributes
    ----------
    width
        Size of the encoder's vector.
    species
        Number of heads.
    """

    width: int
    species: int


@dataclass(frozen=True)
class Domains:
    """The two samples that a training step sees.

    Attributes
    ----------
    simulation
        Labelled training tracks.
    data
        Unlabelled training tracks, float32 [M, F].
    features
        Names of the features.
    columns
        Further columns of the simulated tracks, float32 [N] each, by name (`TrainingStep.columns`).
    species
        PDG code of each head.
    """

    simulation: Tracks
    data: Floats
    features: tuple[str, ...]
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    species: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """One mixed batch: B simulated tracks, then as many or more others, tracks of data by default.

    Attributes
    ----------
    vectors
        The encoder's vectors, float32 [B + B', W], with gradient.
    logits
        The heads' answers, float32 [B + B', S], with gradient.
    labels
        Of the simulated tracks, float32 [B, S].
    weights
        How much the simulated tracks count, float32 [B]; where both samples are compared, a track's partner of data
        counts as much, so that either sample's detector patterns keep their shares.
    columns
        Further columns of the simulated tracks, float32 [B] each, by name.
    rows
        Which of `TrainingStep.others` follow, int64 [B'].
    progress
        Share of the training that is done, 0 to 1.
    """

    vectors: Tensor
    logits: Tensor
    labels: Tensor
    weights: Tensor
    columns: Mapping[str, Tensor]
    rows: Tensor
    progress: float

    @property
    def size(self) -> int:
        """B."""
        return len(self.labels)


class TrainingStep(ABC):
    """Trains a network further, on labelled simulation and unlabelled data together.

    Each step of the optimiser minimises the species' loss on simulation plus `penalty`.

    Parameters
    ----------
    settings
        Its entry of the configuration.

    Attributes
    ----------
    balanced
        Whether each batch of data has the detector patterns of the simulated one, so that matching
        efficiencies cannot tell the domains apart.
    others_per_track
        Tracks of `others` for each simulated track of a batch.
    means
        Collects what `figures` returns.
    """

    Settings: ClassVar[type[TrainingStepSettings]]
    balanced: ClassVar[bool] = True
    others_per_track: ClassVar[int] = 1

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.means = Means()

    @property
    def alone(self) -> int:
        """Epochs at the start in which only the step's own networks are trained."""
        return 0

    @property
    def frozen(self) -> bool:
        """Whether the step's own networks stay as they are after those epochs."""
        return False

    def columns(self) -> tuple[str, ...]:
        """Return dataset columns that `penalty` needs beside the features."""
        return ()

    def others(self, domains: Domains) -> Floats:
        """Return the tracks that batches have beside the labelled ones, float32 [M, F]."""
        return domains.data

    def networks(self, sizes: Sizes, domains: Domains) -> dict[str, nn.Module]:
        """Return the step's own networks, by name; they are trained with the other."""
        return {}

    def memory(self, domains: Domains) -> nn.Module | None:
        """Return buffers that a killed training must find again, beside the networks'; None: there are none."""
        return None

    def begin(self, epoch: int, domains: Domains, predict: Callable[[Floats], Floats]) -> bool:
        """Look at the state before an epoch, and return whether to go on.

        Parameters
        ----------
        epoch
            Counted from 0.
        domains
            Both samples.
        predict
            From raw features [n, F] to the logits [n, S] of the network as it is now.
        """
        return True

    @abstractmethod
    def penalty(self, batch: Batch) -> Tensor:
        """Return what is added to the species' loss, a scalar with gradient."""

    def figures(self) -> dict[str, float]:
        """Return numbers of the last epoch for the learning curve, and start counting anew."""
        return self.means.take()
