"""What the benchmark of adaptation measures beside the gap: calibration, probes, cost and flatness."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from adaptation_trial import PT_EDGES, RUNS, SEEDS, SPECIES, STEPS, WITH_ELECTRONS, Trial

from pidflow.adapt.network import adapt_network
from pidflow.config.adapt import UNADAPTED, Adapt
from pidflow.config.v0 import V0Cuts
from pidflow.dataset.response import robust_width
from pidflow.evaluate.closure import attach_truth
from pidflow.evaluate.probes import rates, read_probes, true_rates
from pidflow.files import read_json
from pidflow.models import load
from pidflow.parquet import matrix
from pidflow.response import expected_time
from pidflow.simulate.shifts import conditions
from pidflow.train.engine import macro_auc

FEWEST_PROBES = 200


def recovered(folder: Path) -> dict[str, float]:
    """Compare fitted gains, offsets and widths with the injected ones; for the TOF, with those of true pions."""
    print(f"\n{'run':>7}{'seed':>5}  {'quantity':18}{'found':>18}{'true':>10}{'pull':>7}")
    pulls = []
    for run, seed in ((run, seed) for run in RUNS for seed in SEEDS):
        trial = Trial(folder / f"bench/{run}/{seed}", folder / f"results/{run}", run, seed)
        fits = {fit["signal"]: fit for fit in read_json(trial.folder / "calibrated.json")["signals"]}
        shift = conditions(RUNS[run], run).shift
        square = shift.resolution_scale**2
        offset, width = true_pions(trial)
        tpc, trd, tof = (fits[name] for name in ("TPC", "TRD", "TOF"))
        found = [
            ("TPC gain, ln", *averaged(tpc, "offset"), float(np.log(shift.tpc_gain))),
            ("TPC tilt", *averaged(tpc, "offset", only="eta"), shift.tpc_tilt),
            ("TPC scale²", *averaged(tpc, "scale"), square),
            ("TRD gain, ln", *averaged(trd, "offset"), 0.0),
            ("TRD scale²", *averaged(trd, "scale"), square),
            ("TOF offset, ps", *averaged(tof, "offset"), offset),
            ("TOF scale²", *averaged(tof, "scale"), width),
        ]
        for name, value, error, true in found:
            pulls.append((value - true) / error)
            print(f"{run:>7}{seed:>5}  {name:18}{f'{value:.4g} ± {error:.2g}':>18}{true:>10.4g}{pulls[-1]:>+7.1f}")
    print(f"pulls: mean {np.mean(pulls):+.2f}, width {np.std(pulls):.2f}")
    return {"calibration_pull_mean": float(np.mean(pulls)), "calibration_pull_width": float(np.std(pulls))}


def averaged(fit: dict[str, Any], part: str, only: str | None = None) -> tuple[float, float]:
    """Return the mean over momentum of a fit's offset or squared scale at η = 0, or one coefficient, and its error."""
    names = fit["terms"] if part == "offset" else fit["scale_terms"]
    momentum = [np.log(point["mean"]) for point in fit["points"] if point["variable"] == "p"]
    value = {"1": 1.0, "ln p": np.mean(momentum), "(ln p)^2": np.mean(np.square(momentum)), "eta^2": 0.21}
    vector = np.array([float(name == only) if only else value.get(name, 0.0) for name in names])
    first = 0 if part == "offset" else len(fit["terms"])
    covariance = np.array(fit["covariance"])[first : first + len(names), first : first + len(names)]
    coefficients = np.array(fit["offset"] if part == "offset" else fit["scale2_minus_1"])
    base = float(part == "scale")
    return float(base + vector @ coefficients), float(np.sqrt(vector @ covariance @ vector))


def true_pions(trial: Trial) -> tuple[float, float]:
    """Return how much later true pions of pseudo-data are at the TOF than simulated ones, ps, and the squared ratio of
    their widths."""
    found = []
    for name in ("simulation", "truth"):
        columns = ["pdg_code", "tof_signal", "tof_event_time", "tof_exp_mom", "length"]
        table = pq.read_table(trial.dataset(name), columns=columns)
        own = np.abs(pc.fill_null(table["pdg_code"], 0).to_numpy()) == 211
        values = {column: table[column].cast("float64").to_numpy()[own] for column in columns[1:]}
        expected = expected_time(values["length"], values["tof_exp_mom"], 0.13957039)
        residual = values["tof_signal"] - values["tof_event_time"] - expected
        found.append(residual[np.isfinite(residual)])
    simulated, data = found
    return float(np.median(data) - np.median(simulated)), (robust_width(data) / robust_width(simulated)) ** 2


def probes(folder: Path) -> dict[str, float]:
    """Compare tag-and-probe efficiencies with the truth of the same probes, for π, p and e."""
    run, seed = 900013, SEEDS[0]
    trial = Trial(folder / f"bench/{run}/{seed}", folder / f"results/{run}", run, seed)
    trial.train("electrons", "calibrated", WITH_ELECTRONS)
    model = load(trial.model("electrons"))
    generated = folder / f"resources/example/{run}"
    truth = {
        f"resources/example/{run}/{path.name.removesuffix('.truth.parquet')}.root": str(path)
        for path in sorted(generated.glob("data_*.truth.parquet"))
    }
    labelled = trial.dataset("truth.probes")
    attach_truth(trial.dataset("data.probes"), truth, labelled)
    legs = read_probes(labelled, trial.v0s("data"), [*dict.fromkeys([*model.info.features, "pdg_code"])])
    certainty = model.score(matrix(legs.columns, model.info.features))
    how: dict[str, Any] = {"species": WITH_ELECTRONS, "threshold": 0.5, "pt_edges": PT_EDGES, "confidence": 0.6827}
    measured, true = rates(legs, certainty, cuts=V0Cuts(), **how), true_rates(legs, certainty, **how)
    distances = []
    print(f"\n{'probe':>8}{'pT':>10}{'probes':>8}{'measured':>22}{'true':>10}")
    for own, reference in zip(measured, true, strict=True):
        if len(own.pdg) == 1:
            continue
        for bin_, other in zip(own.pt, reference.pt, strict=True):
            rate = next(head.rate for head in bin_.heads if head.pdg in own.pdg)
            expected = next(head.rate for head in other.heads if head.pdg in own.pdg).value
            if bin_.n_probes < FEWEST_PROBES or rate.value is None or expected is None:
                continue
            error = (rate.high - rate.low) / 2
            distances.append(abs(rate.value - expected) / error)
            shown = f"{rate.value:.4f} ± {error:.4f}"
            print(f"{own.pdg[0]:>8}{f'{bin_.low:g}–{bin_.high:g}':>10}{bin_.n_probes:>8}{shown:>22}{expected:>10.4f}")
    return {"probe_bins": len(distances), "probe_worst_distance_in_errors": max(distances)}


def cost(folder: Path) -> dict[str, float]:
    """Time three epochs of training, and of adversarial adaptation with as many steps."""
    run, seed = 900013, SEEDS[0]
    trial = Trial(folder / f"bench/{run}/{seed}", folder / f"results/{run}", run, seed)
    with tempfile.TemporaryDirectory() as name:
        spare = Trial(Path(name), trial.production, run, seed)
        for file in ("simulation", "data"):
            spare.dataset(file).symlink_to(trial.dataset(file))
        plain = spare.train("plain", "simulation", optimisation={"epochs": 3})
        begin = time.monotonic()
        adapt_network(
            trial.model(UNADAPTED),
            trial.dataset("simulation"),
            trial.dataset("data"),
            spare.model("dann"),
            settings={"kind": "dann", "epochs": 2, "discriminator_epochs": 1},
            accelerator="cpu",
            threads=1,
        )
        adapted = time.monotonic() - begin
    print(f"\nthree epochs of training: {plain:.1f} s; of adversarial adaptation: {adapted:.1f} s", end="; ")
    print(f"ratio {adapted / plain:.2f}")
    return {"cost_ratio": adapted / plain, "training_s": plain, "adaptation_s": adapted}


def flatness(folder: Path) -> dict[str, float]:
    """Measure how far decorrelation flattens the kaons' efficiency over pT at a mean efficiency of 0.8."""
    run, seed = 900013, SEEDS[0]
    trial = Trial(folder / f"bench/{run}/{seed}", folder / f"results/{run}", run, seed)
    adapt = Adapt.model_validate({"candidates": {"flat": ("flat",)}, "steps": STEPS})
    trial.adapt(adapt, "flat")
    spread, area = {}, {}
    for name in (UNADAPTED, "flat"):
        model = load(trial.model(name))
        columns = [*dict.fromkeys([*model.info.features, "pt", "pdg_code", "split"])]
        table = pq.read_table(trial.dataset("simulation"), columns=columns, filters=pc.field("split") == "test")
        certainty = model.score(matrix(table, model.info.features))
        pdg, pt = pc.fill_null(table["pdg_code"], 0).to_numpy(), table["pt"].to_numpy()
        area[name] = macro_auc(certainty, (pdg[:, None] == np.array(SPECIES)).astype(np.uint8))
        widths = []
        for number, code in enumerate(SPECIES):
            if abs(code) == 321:
                own = pdg == code
                kept = certainty[own, number] >= np.quantile(certainty[own, number], 0.2)
                place = np.digitize(pt[own], PT_EDGES) - 1
                efficiency = [kept[place == b].mean() for b in range(len(PT_EDGES) - 1) if (place == b).sum() >= 100]
                widths.append(float(np.std(efficiency)))
        spread[name] = float(np.mean(widths))
    fall = 1.0 - spread["flat"] / spread[UNADAPTED]
    before, after = ((spread[name], area[name]) for name in (UNADAPTED, "flat"))
    print(
        f"\nspread of the kaons' efficiency over pT {before[0]:.4f} → {after[0]:.4f}, {100 * fall:.0f} % less", end="; "
    )
    print(f"macro AUC {before[1]:.4f} → {after[1]:.4f}")
    return {"flatness_spread_fall": fall, "flatness_auc_points_lost": 100 * (area[UNADAPTED] - area["flat"])}
