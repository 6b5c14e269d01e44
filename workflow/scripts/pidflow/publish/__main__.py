"""Ask and mend a registry: ``python -m pidflow.publish {history,lookup,diff,rollback,choose} <registry> <path> ...``.

Times are ms since 1970. Each command prints a table, or JSON with ``--json``; an error is one sentence and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pidflow.errors import PidflowError
from pidflow.publish.choose import choose
from pidflow.publish.compare import diff
from pidflow.publish.configuration import DETECTOR_MODES
from pidflow.publish.registry import ROLLBACK_KEY, Entry, lookup, rollback, version, versions

_ABSENT = "-"
_SHORT = 12


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [[_ABSENT if cell is None else str(cell) for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _utc(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return _ABSENT  # beyond the calendar, as an end that never comes


def _entries_table(entries: Sequence[Entry]) -> str:
    header = ("created", "created (UTC)", "run", "valid from", "valid until", "objects", "code", "rollback of")
    return _table(
        header,
        [
            (
                entry.created,
                _utc(entry.created),
                entry.metadata.get("run"),
                entry.valid_from,
                entry.valid_until,
                len(entry.objects),
                entry.metadata.get("code"),
                entry.metadata.get(ROLLBACK_KEY),
            )
            for entry in entries
        ],
    )


def _entry_text(entry: Entry) -> str:
    times = [(name, ms, _utc(ms)) for name, ms in entry if name in ("created", "valid_from", "valid_until")]
    facts = _table(("field", "value", ""), [*times, *((key, text, "") for key, text in entry.metadata.items())])
    objects = _table(
        ("object", "bytes", "sha256"),
        [(name, blob.size, blob.sha256[:_SHORT]) for name, blob in entry.objects.items()],
    )
    return f"{facts}\n\n{objects}\n\ndocuments: {', '.join(entry.documents) or _ABSENT}"


def _plain(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json")


def _history(args: argparse.Namespace) -> tuple[Any, str]:
    entries = versions(args.registry, args.path, args.run)
    return [_plain(entry) for entry in entries], _entries_table(entries)


def _lookup(args: argparse.Namespace) -> tuple[Any, str]:
    entry = lookup(args.registry, args.path, args.timestamp)
    if entry is None:
        raise PidflowError(f"{args.path}: nothing is published for time {args.timestamp} ms; publish the run first")
    return _plain(entry), _entry_text(entry)


def _diff(args: argparse.Namespace) -> tuple[Any, str]:
    one, other = (version(args.registry, args.path, created, args.run) for created in (args.one, args.other))
    found = diff(args.registry, one, other)
    rows = [
        (part, name, _short(pair["one"]), _short(pair["other"]))
        for part, pairs in found.items()
        for name, pair in pairs.items()
    ]
    header = ("part", "name", str(one.created), str(other.created))
    return found, _table(header, rows) if rows else "no difference"


def _short(value: Any) -> str:
    """Return a value of a difference in few characters."""
    if isinstance(value, dict) and "sha256" in value:
        return f"{value['sha256'][:_SHORT]} ({value['size']} bytes)"
    if isinstance(value, dict):
        bounds = "" if value["low"] is None else f" [{value['low']}, {value['high']}]"
        return f"{value['value']}{bounds}"
    return _ABSENT if value is None else str(value)


def _rollback(args: argparse.Namespace) -> tuple[Any, str]:
    entry = rollback(args.registry, args.path, run=args.run, created=args.created)
    return _plain(entry), _entry_text(entry)


def _choose(args: argparse.Namespace) -> tuple[Any, str]:
    requests: dict[int, dict[str, float | None]] = {}
    for criterion in ("purity", "efficiency", "fixed"):
        for pdg, value in getattr(args, criterion):
            requests.setdefault(pdg, {})[criterion] = value
    choice = choose(args.registry, args.path, args.timestamp, requests)
    header = ("species", "criterion", "requested", "certainty", "purity", "efficiency", "F1")
    points = _table(
        header, [(p.pdg, p.criterion, p.requested, p.threshold, p.purity, p.efficiency, p.f1) for p in choice.points]
    )
    limits = _table(("detectors", "from p (GeV/c)"), list(zip(DETECTOR_MODES, choice.p_limits, strict=True)))
    whose = f"{choice.path}, run {choice.run or _ABSENT}, created {choice.created} ms"
    plain = {
        "path": choice.path,
        "timestamp": choice.timestamp,
        "run": choice.run,
        "created": choice.created,
        "points": [point.model_dump() for point in choice.points],
        "p_limits": list(choice.p_limits),
        "configuration": choice.fragment(),
    }
    return plain, f"{whose}\n\n{points}\n\n{limits}\n\n{json.dumps(choice.fragment(), indent=2)}"


def _wish(text: str) -> tuple[int, float]:
    """Read ``211=0.9``; a leading 0 marks the antiparticle, as in the names of objects: ``0211=0.9``."""
    species, _, value = text.partition("=")
    pdg = -int(species) if species.startswith("0") else int(species)
    return pdg, float(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pidflow.publish", description="Ask and mend a registry of models.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text)
        found.set_defaults(do=run)
        found.add_argument("registry", help="folder of the registry")
        found.add_argument("path", help="path in the registry, without object")
        found.add_argument("--json", action="store_true", help="print JSON")
        return found

    def time(parser: argparse.ArgumentParser, name: str, text: str) -> None:
        parser.add_argument(name, type=int, metavar=name.strip("-").upper(), help=f"{text}, ms since 1970")

    listing = command("history", _history, "list all publications under a path")
    time(command("lookup", _lookup, "show the publication that is valid at a time"), "timestamp", "time of the data")
    differing = command("diff", _diff, "show what differs between two publications")
    time(differing, "one", "creation of the one")
    time(differing, "other", "creation of the other")
    back = command("rollback", _rollback, "publish an earlier version again; nothing is deleted")
    time(back, "--created", "creation of the version to take; the one before the newest if not given")
    for parser_of_run in (listing, differing, back):
        parser_of_run.add_argument("--run", type=int, help="publications of this run only")
    choosing = command("choose", _choose, "find certainties that reach a purity or an efficiency")
    time(choosing, "timestamp", "time of the data")
    for criterion in ("purity", "efficiency", "fixed"):
        choosing.add_argument(
            f"--{criterion}",
            type=_wish,
            action="append",
            default=[],
            metavar="SPECIES=VALUE",
            help=f"{'certainty' if criterion == 'fixed' else criterion} asked for, such as 211=0.9; 0211 is -211",
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 after an error."""
    args = _parser().parse_args(arguments)
    try:
        plain, text = args.do(args)
    except PidflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(plain, indent=2, ensure_ascii=False) if args.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
