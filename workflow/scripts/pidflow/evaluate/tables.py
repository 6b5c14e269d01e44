"""The table of methods: CSV for machines, HTML for the report, plain text for the terminal."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pidflow.evaluate.schema import Estimate, Metrics, RankedRates, read_metrics
from pidflow.files import write_text
from pidflow.physics import charge_sign, object_key, species_of
from pidflow.tracks import DETECTOR_PATTERNS

MACRO = {"auc": "macro AUC", "f1": "macro F1", "f1_hadrons": "macro F1 (π, K, p)"}
PER_SPECIES = {"purity": "purity", "efficiency": "efficiency", "f1": "F1", "auc": "AUC"}

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
    tracks: Literal["all", "complete"]
    n_tracks: int
    macro: dict[str, Estimate]
    species: dict[int, dict[str, Estimate]]


def compare_methods(metrics: Sequence[str | Path], csv_output: str | Path, html_output: str | Path) -> list[Row]:
    """Write the table of all methods and return its rows.

    Rows are sorted by run, sample and set of tracks, then from the highest macro F1 down.

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
        (row for path in metrics for row in _rows(read_metrics(path))),
        key=lambda row: (row.run, row.sample, row.tracks, -(row.macro["f1"].value or 0.0), row.method),
    )
    write_text(csv_output, _csv(rows))
    write_text(html_output, _html(rows))
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """Return the macro metrics of the rows as plain text, aligned for a terminal."""
    lines = [("run", "sample", "tracks", "method", "n", *MACRO.values())]
    lines += [
        (str(row.run), row.sample, row.tracks, row.method, str(row.n_tracks), *(_text(row.macro[key]) for key in MACRO))
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _rows(metrics: Metrics) -> Iterator[Row]:
    def row(tracks: Literal["all", "complete"], n_tracks: int, macro: object, rates: dict[int, RankedRates]) -> Row:
        return Row(
            metrics.run,
            metrics.sample,
            metrics.model,
            tracks,
            n_tracks,
            {key: getattr(macro, key) for key in MACRO},
            {pdg: {key: getattr(part, key) for key in PER_SPECIES} for pdg, part in rates.items()},
        )

    yield row("all", metrics.n_tracks, metrics.macro, {part.pdg: part.overall for part in metrics.species})
    if metrics.complete:
        complete: dict[int, RankedRates] = {
            part.pdg: rates
            for part in metrics.species
            for rates in part.patterns
            if rates.pattern == DETECTOR_PATTERNS[-1]
        }
        yield row("complete", metrics.complete.n_tracks, metrics.complete, complete)


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
tbody tr:hover {{ background: #f8f8e8; }}
small {{ color: #777; }}
</style>
</head>
<body>
<h1>Methods compared</h1>
<p>Value ± half width of its interval; hold the pointer on a value for both bounds. Click a column's name to sort.
“complete” keeps only tracks that TPC, TRD and TOF all saw.</p>
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
        return f"<tr>{words}{''.join(cell(i, estimate) for i, estimate in enumerate(_estimates(row, species)))}</tr>"

    return _PAGE.format(
        groups="".join(f'<th class="group" colspan="{width}">{name}</th>' for name, width in groups),
        heads="".join(f"<th>{name}</th>" for name in ("run", "sample", "method", "tracks", "number of tracks"))
        + "".join(f"<th{border(i)}>{name}</th>" for i, name in enumerate(heads)),
        body="\n".join(map(line, rows)),
    )
