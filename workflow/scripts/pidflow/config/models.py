"""The workflow's configuration: every key, its meaning, its bounds and its default."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, Union

import yaml
from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationError, model_validator

from pidflow.blocks import Block, Count, Fraction, NotNegative, Positive
from pidflow.config.adapt import CHOSEN, UNADAPTED, Adapt
from pidflow.config.studies import Transfer, Tune
from pidflow.config.v0 import V0Cuts
from pidflow.errors import PidflowError
from pidflow.models import kinds, model_of, settings_of
from pidflow.models.base import ModelSettings
from pidflow.physics import BY_PDG
from pidflow.tracks import BY_NAME, COLUMNS

Cut = NotNegative | None
ModelName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]


class LabelRule(Block):
    """How a track of a flat table gets its PDG code."""

    column: str | None = Field(None, description="column that holds the PDG code")
    file_stems: dict[str, int] = Field(
        default_factory=dict, description="PDG code by the stem of the file's name", examples=[{"pions": 211}]
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.column and self.file_stems:
            raise ValueError("give either 'column' or 'file_stems', not both")
        return self


class BadFiles(Block):
    """What happens to a run of which some input files cannot be used."""

    policy: Literal["fail", "skip"] = Field(
        "fail", description="`fail` the run, or `skip` the files and list them in the quality report"
    )
    max_share: Fraction = Field(0.1, description="largest share of a sample's files that is skipped")


class Ingest(Block):
    """Reading of input files."""

    format: Literal["auto", "ao2d", "pidml", "ud", "esd", "flat"] = Field(
        "auto",
        description="what the input files hold: raw AO2D, derived AO2D of the PID ML producer, derived AO2D of the UD "
        "producer, AliESDs, flat tables; `auto` looks into each file",
    )
    v0: V0Cuts | None = Field(
        default_factory=V0Cuts, description="search for weak decays and photon conversions; null: none"
    )
    bad_files: BadFiles = Field(default_factory=BadFiles, description="policy for unusable input files")
    bad_files_of_run: dict[int, BadFiles] = Field(
        default_factory=dict, description="another policy, by run", examples=[{"529399": {"policy": "skip"}}]
    )
    batch_mb: Count = Field(
        2000, description="MB of local files that one job reads: small files together, a larger ROOT file in parts"
    )
    fetch_retries: Annotated[int, Field(ge=0)] = Field(
        5, description="remote files: failures in a row, without progress, that are tried again"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="flat tables: track-table column ← column in the file",
        examples=[{"tpc_signal": "dEdxTPC"}],
    )
    missing: dict[str, tuple[float, ...]] = Field(
        default_factory=dict,
        description="flat tables: values of a track-table column that mean 'not measured', besides null and NaN",
        examples=[{"its_signal": [0.0]}],
    )
    label: LabelRule = Field(default_factory=LabelRule, description="flat tables: where labels come from")
    tree: str | None = Field(None, description="flat ROOT files: name of the tree")
    drop_duplicates: bool = Field(
        False, description="flat tables: keep the first of rows that are equal in all columns"
    )
    batch_rows: Count = Field(200_000, description="rows read at a time from a flat table")

    @model_validator(mode="after")
    def _known_columns(self) -> Self:
        # what a detector saw follows from its signals
        known = {c.name for c in COLUMNS if c.detector not in ("id", "truth") and not c.name.startswith("has_")}
        if unknown := sorted(set(self.columns) - known):
            raise ValueError(f"'columns' names {unknown}, which a flat table cannot fill")
        if unknown := sorted(set(self.missing) - set(self.columns)):
            raise ValueError(f"'missing' names {unknown}, which 'columns' does not map")
        return self


class Selection(Block):
    """Track selection; a cut set to null is not applied. Defaults follow O2Physics' global tracks."""

    pt_min: Cut = Field(0.1, description="lowest transverse momentum, GeV/c")
    pt_max: Cut = Field(20.0, description="highest transverse momentum, GeV/c")
    eta_max: Cut = Field(0.8, description="largest |η|")
    tpc_n_crossed_rows_min: Cut = Field(70, description="fewest crossed TPC pad rows")
    tpc_crossed_over_findable_min: Cut = Field(0.8, description="lowest ratio of crossed rows to findable clusters")
    tpc_chi2_ncl_max: Cut = Field(4.0, description="largest TPC χ² per cluster")
    its_chi2_ncl_max: Cut = Field(36.0, description="largest ITS χ² per cluster")
    its_inner_hit: bool = Field(True, description="require a hit in the three innermost ITS layers")
    dca_xy_pt_dependent: bool = Field(True, description="require |DCA_xy| < 0.0105 + 0.035/pT^1.1 cm")
    dca_z_max: Cut = Field(2.0, description="largest |DCA_z|, cm")

    @model_validator(mode="after")
    def _some_pt(self) -> Self:
        if self.pt_min is not None and self.pt_max is not None and self.pt_min >= self.pt_max:
            raise ValueError("'pt_min' must lie below 'pt_max'")
        return self


class Masks(Block):
    """Momentum below which a detector is hidden from the model, as O2Physics does with its pLimits."""

    tof: Annotated[float, Field(ge=0)] = Field(0.5, description="TOF is hidden below this p, GeV/c")
    trd: Annotated[float, Field(ge=0)] = Field(0.8, description="TRD is hidden below this p, GeV/c")


class Split(Block):
    """Split by collision."""

    test: Fraction = Field(0.3, description="share of collisions in the test set")
    validation: Fraction = Field(0.3, description="share of the rest in the validation set")
    key: str = Field("pid", description="key of the hash; another key gives another split")


class Dataset(Block):
    """From track tables to the tracks that models see."""

    selection: Selection = Field(default_factory=Selection, description="track selection")
    masks: Masks = Field(default_factory=Masks, description="detector masks")
    split: Split = Field(default_factory=Split, description="train, validation and test sets")


DEFAULT_CANDIDATES = (
    "tpc_signal", "trd_signal", "trd_pattern", "tof_signal", "beta", "p", "pt", "px", "py", "pz", "sign",
    "x", "y", "z", "alpha", "eta", "dca_xy", "dca_z", "tpc_inner_param", "tpc_n_cls_found", "tpc_n_cls_shared",
)  # fmt: skip


class Features(Block):
    """Feature selection by SHAP values."""

    candidates: tuple[str, ...] = Field(DEFAULT_CANDIDATES, description="columns to choose from")
    required: tuple[str, ...] = Field(("sign",), description="columns that are kept whatever their rank")
    every_detector: bool = Field(
        True, description="keep the best of TRD and of TOF, so that the model knows which of them saw the track"
    )
    count: Count | None = Field(None, description="keep this many; null: keep by cumulative share")
    cumulative_share: Fraction = Field(0.99, description="keep the best until this share of all importance")
    folds: Annotated[int, Field(ge=2)] = Field(3, description="folds whose spread is the ranking's error")
    max_tracks: Count = Field(50_000, description="training tracks used to rank")
    max_shap_tracks: Count = Field(1_500, description="tracks per fold whose SHAP values are computed")

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in (*self.candidates, *self.required):
            column = BY_NAME.get(name)
            if column is None or column.detector in ("id", "truth"):
                raise ValueError(f"'{name}' is not a measured column of the track table")
        if not self.candidates:
            raise ValueError("'candidates' is empty")
        for names in (self.candidates, self.required):
            if len(set(names)) != len(names):
                raise ValueError("a column is named twice")
        if self.count is not None and self.count < len(self.required):
            raise ValueError(f"'count' is less than the {len(self.required)} required columns")
        return self


ALWAYS = ("nsigma", "gbdt", "fse")
"""Entries of ``models`` that are there whatever the configuration adds."""


def _kind_of(entry: object) -> str | None:
    return entry.get("kind") if isinstance(entry, dict) else getattr(entry, "kind", None)


if TYPE_CHECKING:
    ModelEntry = ModelSettings
else:
    ModelEntry = Annotated[
        Union[tuple(Annotated[settings_of(kind), Tag(kind)] for kind in kinds())],  # noqa: UP007
        Discriminator(_kind_of),
    ]
"""Settings of a model of any kind."""


def _named_kinds(models: object) -> object:
    """Give an entry without a kind that of its name."""
    if not isinstance(models, dict):
        return models
    named = {name: {} for name in ALWAYS} | {name: {} if entry is None else entry for name, entry in models.items()}
    named = {name: {"kind": name, **entry} if isinstance(entry, dict) else entry for name, entry in named.items()}
    for name, entry in named.items():
        if (kind := _kind_of(entry)) not in kinds():
            raise ValueError(f"'{name}' is of the unknown kind '{kind}'; set its 'kind' to one of {', '.join(kinds())}")
    return named


class Evaluate(Block):
    """Metrics and plots."""

    methods: tuple[str, ...] = Field(
        ("nsigma", "gbdt", "fse"),
        description="entries of 'models' that are compared; the candidates of adaptation join them",
    )
    ceiling: bool = Field(True, description="compare with the best that is possible, where it is known: example runs")
    equalise: tuple[str, ...] = Field(
        (),
        description="columns whose joint distribution is made the same for all species before a second evaluation, for "
        "tracks that were tagged",
    )
    pt_edges: tuple[float, ...] = Field(
        (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 20.0), description="edges of the pT bins, GeV/c", min_length=2
    )
    threshold: Fraction = Field(0.5, description="certainty from which a track is accepted")
    bootstrap: Annotated[int, Field(ge=20)] = Field(200, description="resamplings, by collision")
    confidence: Fraction = Field(0.68, description="coverage of intervals")
    image_format: Literal["png", "svg"] = Field("png", description="format of the plots in the report")

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        if any(low >= high for low, high in zip(self.pt_edges, self.pt_edges[1:], strict=False)):
            raise ValueError("'pt_edges' must increase")
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("'methods' names a model twice")
        return self


class Closure(Block):
    """Closure on pseudo-data, whose truth lies in files that nothing else reads."""

    truth: str | None = Field(
        None, description="truth beside each data file: '{folder}' and '{stem}' of the data file are filled in"
    )

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        try:
            (self.truth or "").format(folder="", stem="")
        except (KeyError, IndexError, ValueError):
            raise ValueError("'truth' may hold {folder} and {stem} in braces, nothing else") from None
        return self


class Publish(Block):
    """Export and the local registry."""

    model: str = Field("adapted", description="what is published: the adapted model, or an entry of 'models'")
    path: str = Field("Users/p/pidflow/PIDML", description="path in the registry; no component may be a number")
    uncommitted: Literal["mark", "refuse"] = Field(
        "mark",
        description="a model made by code that is not committed to git, or not known to be: `mark` the publication, or "
        "`refuse` it",
    )
    tolerance: Positive = Field(1e-5, description="largest difference between ONNX and torch that is published")

    @model_validator(mode="after")
    def _path_rules(self) -> Self:
        parts = self.path.split("/")
        if any(not part or part.isdigit() or part in (".", "..") for part in parts):
            raise ValueError(f"'path' {self.path!r} needs non-empty, non-numeric parts")
        return self


ShiftName = Literal["none", "mild", "moderate", "strong"]

DEFAULT_SHIFTS: dict[int, ShiftName] = {900001: "mild", 900002: "strong"}


class Example(Block):
    """The example production: generated only if the run table asks for its files."""

    folder: str = Field("resources/example", description="folder of the generated files")
    events_per_file: Count = Field(3500, description="collisions in each file")
    frames_per_file: Count = Field(2, description="data frames in each file")
    shifts: dict[int, ShiftName] = Field(
        DEFAULT_SHIFTS, description="by run, how far the pseudo-data's detector is from the simulated one"
    )

    def makes(self, path: str) -> bool:
        """Return whether the workflow generates a file."""
        return path.startswith(self.folder.rstrip("/") + "/")


class Pathvars(Block):
    """Folders that the workflow writes to."""

    results: str = Field("results", description="results, one folder per run")
    registry: str = Field("registry", description="local registry of published models")
    logs: str = Field("logs", description="a log per job")


class Config(Block):
    """The whole configuration."""

    pathvars: Pathvars = Field(default_factory=Pathvars, description="folders that the workflow writes to")
    runs: str = Field("config/runs.tsv", description="the run table")
    run: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the run that `snakemake reproduce` makes again from its publication"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(20240917, description="seed of every random choice")
    species: tuple[int, ...] = Field(
        (211, 321, 2212, -211, -321, -2212), description="PDG codes that get a certainty each", min_length=1
    )
    ingest: Ingest = Field(default_factory=Ingest, description="reading of input files")
    dataset: Dataset = Field(default_factory=Dataset, description="selection, masks and split")
    features: Features = Field(default_factory=Features, description="feature selection")
    models: Annotated[dict[ModelName, ModelEntry], BeforeValidator(_named_kinds)] = Field(
        default_factory=lambda: {name: settings_of(name)(kind=name) for name in ALWAYS},
        description="models by name, each of a kind; without 'kind' the name is the kind; these three are always there",
    )
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="where networks are trained")
    adapt: Adapt = Field(default_factory=Adapt, description="domain adaptation")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="metrics and plots")
    closure: Closure = Field(default_factory=Closure, description="closure on pseudo-data")
    publish: Publish = Field(default_factory=Publish, description="publication")
    example: Example = Field(default_factory=Example, description="example production")
    transfer: Transfer = Field(default_factory=Transfer, description="`snakemake transfer`: transfer learning")
    tune: Tune = Field(default_factory=Tune, description="`snakemake tune`: search for better settings of a model")
    container: str | None = Field(
        None, description="Apptainer image in which `--sdm apptainer` runs the steps (containers/pidflow.def)"
    )

    @model_validator(mode="after")
    def _known_species(self) -> Self:
        if unknown := [pdg for pdg in self.species if abs(pdg) not in BY_PDG]:
            raise ValueError(f"'species' names {unknown}; known are ±{sorted(BY_PDG)}")
        if len(set(self.species)) != len(self.species):
            raise ValueError("'species' names a code twice")
        return self

    @model_validator(mode="after")
    def _publishable(self) -> Self:
        if self.publish.model == "adapted" and self.adapt.method == UNADAPTED:
            raise ValueError("'publish.model' is adapted but 'adapt.method' is none; choose another model or a method")
        given = {"evaluate.methods": self.evaluate.methods}
        given["adapt.model"] = (self.adapt.model,) if self.adapt.method != UNADAPTED else ()
        given["publish.model"] = (self.publish.model,) if self.publish.model != "adapted" else ()
        given |= {f"models.{name}.members": entry.needs for name, entry in self.models.items()}
        for key, names in given.items():
            if unknown := [name for name in names if name not in self.models]:
                raise ValueError(
                    f"'{key}' names {unknown[0]}, which is no entry of 'models'; add it or correct the name"
                )
        for taken in {"adapted", "oracle", "ceiling", self.adapted, *self.candidates} & set(self.models):
            raise ValueError(f"'models.{taken}' has a name that stands for another model; give it another one")
        if self.adapted and not model_of(self.models[self.adapt.model].kind).is_network:
            for name, steps in self.adapt.used.items():
                if not self.adapt.changes_sample(steps[-1]):
                    raise ValueError(
                        f"'adapt.candidates.{name}' trains a network further, and 'adapt.model' {self.adapt.model} is "
                        "none; name a network, or set 'adapt.method' to a candidate that only changes the sample"
                    )
        if self.published not in self.compared:
            raise ValueError(f"'evaluate.methods' must name {self.publish.model}, the model that is published")
        key = "adapt.model" if self.publish.model == "adapted" else "publish.model"
        source = self.adapt.model if self.publish.model == "adapted" else self.publish.model
        if not model_of(self.models[source].kind).exported:
            raise ValueError(f"'{key}' {source} has no ONNX graph; choose another model")
        return self

    @model_validator(mode="after")
    def _known_order(self) -> Self:
        def below(name: str, above: tuple[str, ...]) -> None:
            if name in above:
                raise ValueError(f"'models.{name}' is made of itself by way of {', '.join(above)}; correct its members")
            for needed in self.models[name].needs:
                below(needed, (*above, name))

        for name in self.models:
            below(name, ())
        return self

    @property
    def adapted(self) -> str | None:
        """Name of the adapted model."""
        return None if self.adapt.method == UNADAPTED else f"{self.adapt.model}_{CHOSEN}"

    @property
    def candidates(self) -> dict[str, str]:
        """Candidates of adaptation by the name of their model."""
        return {f"{self.adapt.model}_{name}": name for name in self.adapt.used}

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of all models that are compared."""
        return (*self.evaluate.methods, *self.candidates, *([self.adapted] if self.adapted else []))

    def with_needed(self, *names: str) -> tuple[str, ...]:
        """Return entries of 'models' with what they are made of, in the order of the entries."""
        found, waiting = set(), list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self.models[name].needs)
        return tuple(name for name in self.models if name in found)

    @property
    def published(self) -> str:
        """Name of the model that is published."""
        return self.adapted or "" if self.publish.model == "adapted" else self.publish.model


def validate(content: object, origin: str) -> Config:
    """Return the configuration that `content` (nested dict) describes.

    Raises
    ------
    PidflowError
        Naming `origin`, the first offending key and the mend.
    """
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # below an entry of 'models' or 'adapt.steps' lies its kind, which is no key of its own
        kind_at = {("models",): 2, ("adapt", "steps"): 3}
        skipped = {place for start, place in kind_at.items() if first["loc"][: len(start)] == start}
        where = [part for place, part in enumerate(first["loc"]) if place not in skipped and part != "[key]"]
        key = ".".join(str(part) for part in where) or "(top level)"
        if first["type"] == "extra_forbidden":
            message = "is not a known key; see docs/configuration.md for the keys and correct or remove it"
        else:
            message = f"is not valid: {first['msg'].removeprefix('Value error, ')}"
        raise PidflowError(f"{origin}: key '{key}' {message}") from None


def load(path: str | Path) -> Config:
    """Read and validate one configuration file (YAML, safe-loaded).

    Raises
    ------
    PidflowError
        If it is no YAML or not valid.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise PidflowError(f"{path}: no valid YAML ({' '.join(str(error).split())}); correct it") from None
    return validate(content or {}, str(path))
