"""Settings of the optional studies, transfer learning and tuning, and what they ask of the rest."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from pidflow.blocks import Block, Count
from pidflow.dotted import Value, with_values
from pidflow.errors import PidflowError
from pidflow.models import settings_of

if TYPE_CHECKING:
    from pidflow.config.models import Config

RunNumber = Annotated[int, Field(ge=1)]
SCRATCH = "scratch"
"""How a training of the transfer study starts that is given no weights."""

_LEAST_BATCH = 32


class Transfer(Block):
    """The study of transfer learning, `snakemake transfer`."""

    model: str = Field("fse", description="network that is trained, an entry of 'models'")
    source: RunNumber | None = Field(
        None, description="run whose network the others start from; null: the first of the run table"
    )
    fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.01, 0.03, 0.1, 0.3, 1.0), description="shares of a run's training collisions to use", min_length=1
    )
    modes: tuple[Literal["whole", "frozen", "layerwise"], ...] = Field(
        ("whole",),
        description="what a start from another run's weights trains, as 'transfer' of a network",
        min_length=1,
    )
    repeats: Count = Field(
        10,
        description="a small share is trained in smaller batches and passed over more often, to make as many steps as "
        "the whole: at most this factor",
    )

    @model_validator(mode="after")
    def _once(self) -> Self:
        for name in ("fractions", "modes"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"'{name}' holds a value twice")
        return self


class Range(Block):
    """Numbers from which one is chosen; whole numbers if both bounds are whole."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError("needs low < high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range needs low > 0")
        return self


Choices = Annotated[tuple[Value, ...], Field(min_length=1)]


def _form(values: object) -> str:
    return "range" if isinstance(values, dict | Range) else "choices"


Values = Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_form)]
"""What a key can be."""

_SPACE: dict[str, Any] = {
    "optimisation.learning_rate": {"low": 5e-4, "high": 1e-2, "log": True},
    "optimisation.batch": [128, 256, 512, 1024],
    "optimisation.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    "optimisation.average": [0.0, 0.99, 0.998],
    "network.width": [16, 32, 64],
    "network.dropout": [0.0, 0.05, 0.1],
    "network.encoding": ["linear", "piecewise"],
}


class Tune(Block):
    """The search for better settings of a model, `snakemake tune`."""

    model: str = Field("fse", description="model whose settings are tuned, an entry of 'models'")
    run: RunNumber | None = Field(
        None, description="run on whose simulation they are tuned; null: the first of the run table"
    )
    trials: Count = Field(30, description="trainings; a larger number adds to those that are there")
    objective: Literal["validation_loss", "validation_auc"] = Field(
        "validation_loss", description="what is best on the validation set: least cross entropy or largest macro AUC"
    )
    space: dict[str, Values] = Field(
        _SPACE,
        description="by dotted key below the model's settings, a list of choices or a range {low, high, log}",
        validate_default=True,
        min_length=1,
    )


def source_and_targets(config: Config, runs: Collection[int]) -> tuple[int, tuple[int, ...]]:
    """Return the run whose model the transfer study starts from, and the runs that are trained.

    Raises
    ------
    PidflowError
        If there is no such run or model, or no second run.
    """
    study = config.transfer
    source = _run("transfer.source", study.source, runs)
    _network(config)
    targets = tuple(run for run in runs if run != source)
    if not targets:
        raise PidflowError(
            f"{config.runs}: transfer learning starts from one run and trains another, but run {source} is the only "
            "one; add a run"
        )
    return source, targets


def transfer_settings(config: Config, start: str, fraction: float) -> dict[str, Any]:
    """Return the settings of one training of the transfer study.

    Parameters
    ----------
    config
        The whole configuration.
    start
        ``scratch``, or what a start from other weights trains.
    fraction
        Share of the training collisions.
    """
    network = _network(config)
    options = network.optimisation
    batch = max(round(fraction * options.batch), min(_LEAST_BATCH, options.batch))
    longer = min(config.transfer.repeats, max(1, round(batch / (fraction * options.batch))))
    content = network.model_dump(mode="json")
    content["optimisation"] |= {
        "batch": batch, "epochs": longer * options.epochs, "patience": longer * options.patience
    }  # fmt: skip
    # which weights those are is told by the job's input
    return {**content, "init_from": None, "transfer": "whole" if start == SCRATCH else start}


def tuned_run(config: Config, runs: Collection[int]) -> int:
    """Return the run on whose simulation a model is tuned.

    Raises
    ------
    PidflowError
        If there is no such run or model, or the model's settings lack a key of the space or refuse one of its values.
    """
    study = config.tune
    run = _run("tune.run", study.run, runs)
    content = _entry(config, "tune.model", study.model).model_dump(mode="json")
    for key, values in study.space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            try:
                settings_of(content["kind"]).model_validate(with_values(content, {key: value}))
            except ValidationError as error:
                first = error.errors()[0]
                if first["type"] == "value_error":
                    # of several keys together, of which the study may change more than this one
                    continue
                if first["type"] == "extra_forbidden":
                    raise PidflowError(
                        f"'tune.space' names '{key}', which is no key of 'models.{study.model}', a model of kind "
                        f"'{content['kind']}'; correct or remove it"
                    ) from None
                raise PidflowError(
                    f"'tune.space' lets '{key}' be {value!r}, which 'models.{study.model}' refuses: {first['msg']}"
                ) from None
    return run


def _run(key: str, number: int | None, runs: Collection[int]) -> int:
    if number is None:
        return next(iter(runs))
    if number not in runs:
        raise PidflowError(f"'{key}' is {number}, which is no run of the run table; choose one of it")
    return number


def _entry(config: Config, key: str, model: str) -> Any:
    if model not in config.models:
        raise PidflowError(f"'{key}' is {model}, which is no entry of 'models'; add it or correct the name")
    return config.models[model]


def _network(config: Config) -> Any:
    entry = _entry(config, "transfer.model", config.transfer.model)
    # not by its class, whose module every step that reads settings would then depend on
    if not hasattr(entry, "init_from"):
        raise PidflowError(
            f"'transfer.model' is {config.transfer.model}, which is no network with weights to start from; choose one"
        )
    return entry
