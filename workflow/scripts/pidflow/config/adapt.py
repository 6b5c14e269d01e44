"""Configuration of the adaptation to data: steps, candidates made of them, and how one is chosen."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Self, Union

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from pidflow.adapt.steps import kinds, settings_of, step_of
from pidflow.adapt.steps.base import SampleStep, StepSettings
from pidflow.blocks import Block, Fraction, NotNegative

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]

PLAIN = "simulation"
UNADAPTED = "none"
AUTOMATIC = "auto"
CHOSEN = "adapted"
"""Names that candidates cannot have."""


def _kind_of(entry: object) -> str | None:
    return entry.get("kind") if isinstance(entry, dict) else getattr(entry, "kind", None)


if TYPE_CHECKING:
    StepEntry = StepSettings
else:
    StepEntry = Annotated[
        Union[tuple(Annotated[settings_of(kind), Tag(kind)] for kind in kinds())],  # noqa: UP007
        Discriminator(_kind_of),
    ]
"""Settings of a step of any kind."""


def _named_kinds(steps: object) -> object:
    """Give an entry without a kind that of its name; each kind has an entry of its own name."""
    if not isinstance(steps, dict):
        return steps
    named = {name: {} for name in kinds()} | {name: {} if entry is None else entry for name, entry in steps.items()}
    named = {name: {"kind": name, **entry} if isinstance(entry, dict) else entry for name, entry in named.items()}
    for name, entry in named.items():
        if (kind := _kind_of(entry)) not in kinds():
            raise ValueError(f"'{name}' is of the unknown kind '{kind}'; set its 'kind' to one of {', '.join(kinds())}")
    return named


class Choice(Block):
    """Choice among candidates by scores that need no label of data."""

    floor: Fraction = Field(
        0.05,
        description="a candidate is out that loses more macro AUC than this on any detector pattern of the plain "
        "simulation",
    )
    best_domain_auc: Fraction = Field(
        0.65,
        description="calibrated simulation is trusted for the choice if a classifier tells data from it no better than "
        "this AUC",
    )
    significance: NotNegative = Field(
        2.0,
        description="candidates within so many standard errors of the best are its equals: of them one is taken that "
        "was trained on the sample that resembles data most",
    )


class Adapt(Block):
    """Domain adaptation to unlabelled data."""

    method: str = Field(
        AUTOMATIC,
        description="'auto': the candidate that label-free scores choose; the name of a candidate; 'none' where a run "
        "has no data files",
    )
    model: str = Field("fse", description="model that is adapted, an entry of 'models'; training steps need a network")
    candidates: dict[Name, tuple[str, ...]] = Field(
        {
            "calibrated": ("calibrate_response",),
            "self_trained": ("calibrate_response", "self_training"),
        },
        description="steps of each candidate, in their order: first those that change the simulated sample, then those "
        "that train a network further; what a list starts with is a candidate too",
    )
    steps: Annotated[dict[Name, StepEntry], BeforeValidator(_named_kinds)] = Field(
        default_factory=lambda: {kind: settings_of(kind)(kind=kind) for kind in kinds()},
        description="steps by name, each of a kind; without 'kind' the name is the kind; each kind is always there",
    )
    choice: Choice = Field(default_factory=Choice, description="choice of the candidate")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.method == AUTOMATIC and not self.candidates:
            raise ValueError("'candidates' is empty, and 'method' auto; name some, or set 'method' to none")
        for name, steps in self.candidates.items():
            if not steps:
                raise ValueError(f"'candidates.{name}' has no step; name some, or remove it")
            if unknown := [step for step in steps if step not in self.steps]:
                raise ValueError(f"'candidates.{name}' names {unknown[0]}, which is no entry of 'steps'")
            changes = [self.changes_sample(step) for step in steps]
            if changes != sorted(changes, reverse=True):
                raise ValueError(
                    f"'candidates.{name}' changes the sample after a step that trains; put "
                    f"{', '.join(step for step in steps if self.changes_sample(step))} first"
                )
        if len(set(self.candidates.values())) != len(self.candidates):
            raise ValueError("two entries of 'candidates' have the same steps; remove one")
        named = [name for name, _ in self._starts()]
        for name in named:
            if name in (PLAIN, "data", UNADAPTED, AUTOMATIC, CHOSEN):
                raise ValueError(f"'candidates.{name}' has a name with a meaning of its own; give it another one")
            if named.count(name) > 1:
                raise ValueError(
                    f"'candidates' has two lists of steps that would be called {name}, what a list starts with among "
                    "them; give that start a name of its own"
                )
        if self.method not in (AUTOMATIC, UNADAPTED, *self.candidates):
            raise ValueError(f"'method' {self.method} is no candidate; choose auto, none or one of 'candidates'")
        return self

    def changes_sample(self, step: str) -> bool:
        """Return whether a step changes the simulated sample rather than train a network."""
        return issubclass(step_of(self.steps[step].kind), SampleStep)

    @property
    def chains(self) -> dict[str, tuple[str, ...]]:
        """Steps of every candidate, what their lists start with included; shorter ones first."""
        return dict(self._starts())

    def _starts(self) -> list[tuple[str, tuple[str, ...]]]:
        named = {steps: name for name, steps in self.candidates.items()}
        starts = {start for steps in named for start in accumulate((step,) for step in steps)}
        ordered = sorted(starts, key=lambda steps: (len(steps), list(self.steps).index(steps[0]), steps))
        return [(named.get(steps, "_".join(steps)), steps) for steps in ordered]

    @property
    def used(self) -> dict[str, tuple[str, ...]]:
        """Steps of the candidates that a run needs, by name: all to choose from, or the one with its starts."""
        if self.method == UNADAPTED:
            return {}
        if self.method == AUTOMATIC:
            return self.chains
        steps = self.candidates[self.method]
        return {name: chain for name, chain in self.chains.items() if steps[: len(chain)] == chain}

    def before(self, candidate: str) -> str | None:
        """Return the candidate that a candidate's last step starts from; None: the unadapted model."""
        chain = self.chains[candidate][:-1]
        return next((name for name, steps in self.chains.items() if steps == chain), None)

    def sample_of(self, candidate: str) -> str | None:
        """Return the candidate whose simulated sample a candidate is trained on; None: the plain one."""
        chain = tuple(step for step in self.chains[candidate] if self.changes_sample(step))
        return next((name for name, steps in self.chains.items() if steps == chain), None)

    @property
    def trained_on(self) -> dict[str, str]:
        """Sample that the unadapted model and each candidate is trained on; ``simulation`` is the plain one."""
        return {UNADAPTED: PLAIN} | {name: self.sample_of(name) or PLAIN for name in self.used}

    def last(self, candidate: str) -> StepSettings:
        """Return the settings of a candidate's last step."""
        return self.steps[self.chains[candidate][-1]]
