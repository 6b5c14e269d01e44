"""The table of methods: CSV for machines, HTML for the report, plain text for the terminal."""

from __future__ import annotations

import csv
import html
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pidflow.evaluate.paired import CEILING, FLOOR, share_of_ceiling
from pidflow.evaluate.schema import CompleteMacro, Estimate, Metrics, RankedRates, read_metrics
from pidflow.files import write_text
from pidflow.physics import charge_sign, object_key, species_of
from pidflow.tracks import DETECTOR_PATTERNS

SHARE = "ceiling_share"
"""Key of the share of the ceiling (`pidflow.evaluate.paired.share_of_ceiling`)."""

MACRO = {
    "auc": "macro AUC",
    "f1": "macro F1",
    "f1_hadrons": "macro F1 (π, K, p)",
    "ece": "macro ECE",
    SHARE: "share of ceiling",
}
PER_SPECIES = {"purity": "purity", "efficiency": "efficiency", "f1": "F1", "auc": "AUC", "ece": "ECE"}

_SYMBOLS = {"el": "e", "pi": "π", "ka": "K", "pr": "p", "de": "d"}
_UNDEFINED = Estimate(value=None, low=None, high=None)


@dataclass(frozen=True)
class Row:
    """One method on one sample of one run.

    Attributes
    ----------
    run, sample, method
        What was evaluated.
    tracks
        All test tracks, or those only that every detector saw.
    n_tracks
        Their number.
    macro
        By key of `MACRO`.
    species
        By PDG code, then by key of `PER_SPECIES`.
    """

    run: int
    sample: str
    method: str
    tracks: str
    n_tracks: int
    macro: dict[str, Estimate]
    species: dict[int, dict[str, Estimate]]

    @property
    def is_reference(self) -> bool:
        """Whether the row is what methods are measured by, not a method itself."""
        return self.method == CEILING


def compare_methods(metrics: Sequence[str | Path], csv_output: str | Path, html_output: str | Path) -> list[Row]:
    """Write the table of all methods and return its rows.

    Rows are sorted by run, sample and set of tracks, then from the highest macro F1 down; the
    ceiling, which is a reference and not a method, stands last.

    Parameters
    ----------
    metrics
        Metrics files.
    csv_output
        Values and both bounds of their intervals, unrounded; an undefined value is empty.
    html_output
        One self-contained page; a click on a column's head sorts by it.
    """
    rows = sorted(
        table_rows([read_metrics(path) for path in metrics]),
        key=lambda row: (
            (row.run, row.sample, row.tracks, row.is_reference),
            (-(row.macro["f1"].value or 0.0), row.method),
        ),
    )
    write_text(csv_output, _csv(rows))
    write_text(html_output, _html(rows))
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """Return the rows as plain text for a terminal.

    Each run, sample and set of tracks has a block of the macro metrics and one per species, with a
    line per method. A macro metric that is undefined, or the macro F1 once more, is left out.
    """
    species = _species(rows)
    signed = any(pdg < 0 for pdg in species)
    blocks = []
    for (run, sample, tracks), group in itertools.groupby(rows, lambda row: (row.run, row.sample, row.tracks)):
        shown = list(group)
        names = {
            key: name
            for key, name in MACRO.items()
            if any(row.macro[key] not in (_UNDEFINED, row.macro["f1"]) or key == "f1" for row in shown)
        }
        title = f"Run {run}, {sample}, {tracks} tracks ({shown[0].n_tracks:,})"
        blocks.append(f"{title}\n{'=' * len(title)}")
        blocks.append(_aligned("all species", names, {row.method: row.macro for row in shown}))
        blocks += [
            _aligned(_label(pdg, signed), PER_SPECIES, {row.method: row.species[pdg] for row in shown})
            for pdg in shown[0].species
        ]
    return "\n\n".join(blocks)


def _aligned(title: str, names: dict[str, str], methods: dict[str, dict[str, Estimate]]) -> str:
    lines = [(title, *names.values())]
    lines += [(method, *(_text(estimates[key]) for key in names)) for method, estimates in methods.items()]
    widths = [max(18, *map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def table_rows(everything: Sequence[Metrics]) -> Iterator[Row]:
    """Yield the rows of the table, unsorted: all tracks of each, and complete ones where there are any."""
    known = {(metrics.run, metrics.sample, metrics.model): metrics for metrics in everything}
    for metrics in everything:
        floor, ceiling = (known.get((metrics.run, metrics.sample, model)) for model in (FLOOR, CEILING))
        for tracks, macro in (("all", metrics.macro), ("complete", metrics.complete)):
            if macro is None:
                continue
            complete = isinstance(macro, CompleteMacro)
            share = _UNDEFINED
            if floor and ceiling and metrics.model not in (FLOOR, CEILING):
                share = share_of_ceiling(metrics, floor, ceiling, complete=complete)
            rates: dict[int, RankedRates] = {
                part.pdg: next(rates for rates in part.patterns if rates.pattern == DETECTOR_PATTERNS[-1])
                if complete
                else part.overall
                for part in metrics.species
            }
            yield Row(
                metrics.run,
                metrics.sample,
                metrics.model,
                tracks,
                macro.n_tracks if isinstance(macro, CompleteMacro) else metrics.n_tracks,
                {key: share if key == SHARE else getattr(macro, key) for key in MACRO},
                {pdg: {key: getattr(part, key) for key in PER_SPECIES} for pdg, part in rates.items()},
            )


def _species(rows: Sequence[Row]) -> list[int]:
    return list(dict.fromkeys(pdg for row in rows for pdg in row.species))


def _label(pdg: int, signed: bool) -> str:
    charge = ("⁺" if charge_sign(pdg) > 0 else "⁻") if signed else ""
    return _SYMBOLS[species_of(pdg).key] + charge


def _text(estimate: Estimate) -> str:
    """Return ``value ± half width of the interval``."""
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} ± {(estimate.high - estimate.low) / 2:.4f}"


def _estimates(row: Row, species: Sequence[int]) -> list[Estimate]:
    """Return the estimates of a row in the order of the columns."""
    per_species = [row.species.get(pdg, {}).get(key, _UNDEFINED) for pdg in species for key in PER_SPECIES]
    return [*(row.macro[key] for key in MACRO), *per_species]


def _csv(rows: Sequence[Row]) -> str:
    species = _species(rows)
    names = [f"macro_{key}" for key in MACRO] + [f"{key}_{object_key(pdg)}" for pdg in species for key in PER_SPECIES]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            "run",
            "sample",
            "method",
            "tracks",
            "n_tracks",
            *(name + end for name in names for end in ("", "_low", "_high")),
        ]
    )
    for row in rows:
        numbers = (bound for part in _estimates(row, species) for bound in (part.value, part.low, part.high))
        writer.writerow([row.run, row.sample, row.method, row.tracks, row.n_tracks, *numbers])
    return stream.getvalue()


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Methods compared</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; }}
table {{ border-collapse: collapse; white-space: nowrap; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3em .7em; border-bottom: 1px solid #ddd; text-align: right; }}
th {{ background: #f2f4f7; position: sticky; top: 0; }}
tr.names th {{ cursor: pointer; top: 2em; }}
tr.names th:hover {{ background: #dfe6ef; }}
td.word {{ text-align: left; }}
.group {{ text-align: center; border-left: 2px solid #bbb; }}
.first {{ border-left: 2px solid #bbb; }}
tr.reference {{ font-style: italic; }}
tbody tr:hover {{ background: #f8f8e8; }}
small {{ color: #777; }}
</style>
</head>
<body>
<h1>Methods compared</h1>
<p>Value ± half width of its interval; hold the pointer on a value for both bounds. Click a column's name to sort.
“complete” keeps only tracks that TPC, TRD and TOF all saw. ECE is the expected calibration error, lower is better.
The share of ceiling counts the macro AUC from nsigma (0) to the ceiling (1), the best that any method can reach: a
reference in italics, known only where the tracks were generated.</p>
<table>
<thead>
<tr><th colspan="5"></th>{groups}</tr>
<tr class="names">{heads}</tr>
</thead>
<tbody>
{body}
</tbody>
</table>
<script>
document.querySelectorAll("tr.names th").forEach((head, column) => {{
  let descending = false;
  head.onclick = () => {{
    descending = !descending;
    const body = document.querySelector("tbody"), key = row => row.cells[column].dataset.key;
    const compare = (a, b) => a.localeCompare(b, undefined, {{numeric: true}});
    const rows = [...body.rows].sort((a, b) => {{
      if (a.className != b.className) return a.className.localeCompare(b.className);
      if (!key(a) || !key(b)) return !key(a) - !key(b);
      const order = isNaN(key(a)) || isNaN(key(b)) ? compare(key(a), key(b)) : key(a) - key(b);
      return descending ? -order : order;
    }});
    body.append(...rows);
  }};
}});
</script>
</body>
</html>
"""


def _html(rows: Sequence[Row]) -> str:
    species = _species(rows)
    signed = any(pdg < 0 for pdg in species)
    groups = [("all species", len(MACRO)), *((_label(pdg, signed), len(PER_SPECIES)) for pdg in species)]
    heads = [*MACRO.values(), *list(PER_SPECIES.values()) * len(species)]
    starts = {sum(width for _, width in groups[:i]) for i in range(len(groups))}

    def border(column: int) -> str:
        return ' class="first"' if column in starts else ""

    def cell(column: int, estimate: Estimate) -> str:
        if estimate.value is None:
            return f'<td{border(column)} data-key="">–</td>'
        value, _, width = _text(estimate).partition(" ± ")
        bounds = "" if not width else f' title="{estimate.low:.5f} – {estimate.high:.5f}"'
        spread = f" <small>± {width}</small>" if width else ""
        return f'<td{border(column)} data-key="{estimate.value!r}"{bounds}>{value}{spread}</td>'

    def line(row: Row) -> str:
        words = "".join(
            f'<td class="word" data-key="{html.escape(str(word))}">{html.escape(str(word))}</td>'
            for word in (row.run, row.sample, row.method, row.tracks, row.n_tracks)
        )
        kind = ' class="reference"' if row.is_reference else ""
        return (
            f"<tr{kind}>{words}{''.join(cell(i, estimate) for i, estimate in enumerate(_estimates(row, species)))}</tr>"
        )

    return _PAGE.format(
        groups="".join(f'<th class="group" colspan="{width}">{name}</th>' for name, width in groups),
        heads="".join(f"<th>{name}</th>" for name in ("run", "sample", "method", "tracks", "number of tracks"))
        + "".join(f"<th{border(i)}>{name}</th>" for i, name in enumerate(heads)),
        body="\n".join(map(line, rows)),
    )
