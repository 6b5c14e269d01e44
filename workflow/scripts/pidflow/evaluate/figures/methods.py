"""How a method is drawn, alike in all figures: families share a colour, a few methods stand out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pidflow.evaluate.paired import CEILING, FLOOR

_FAMILIES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cuts and likelihoods": ((FLOOR, "bayes"), ("#000000", "#8c8c8c")),
    "trees": (("gbdt", "gbdt_xgboost", "random_forest"), ("#D55E00", "#E69F00", "#b88a5a")),
    "networks on filled-in tracks": (
        ("mlp_mean", "mlp_regression", "mlp_delete", "pattern_ensemble"),
        ("#009E73", "#5fbf9f", "#2f7d5f", "#a3c586"),
    ),
    "attention": (("fse", "fse_dann", "fse_paper"), ("#0072B2", "#56B4E9", "#7f9fd0")),
    "others": (("tabm", "blend", "oracle"), ("#CC79A7", "#8e5aa8", "#c0504d")),
    "reference": ((CEILING,), ("#7B1E3A",)),
}
_COLOUR = {
    method: colour for methods, colours in _FAMILIES.values() for method, colour in zip(methods, colours, strict=True)
}
_ORDER = (*_COLOUR,)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "H", "8", "4", "*")
_LINES = ("-", "--", "-.", ":")
_MAIN = (FLOOR, "gbdt", "fse", CEILING)
_UNKNOWN = "#777777"


def ordered(methods: Iterable[str]) -> list[str]:
    """Return methods family by family; those of none of them last, by name."""
    return sorted(methods, key=lambda method: (_ORDER.index(method) if method in _ORDER else len(_ORDER), method))


def main_methods(methods: Iterable[str], published: str) -> list[str]:
    """Return the few methods that figures for a handful of curves show, the published one among them."""
    return [method for method in ordered(methods) if method in (*_MAIN, published)]


def method_style(method: str) -> dict[str, Any]:
    """Return colour, marker and line of a method."""
    place = _ORDER.index(method) if method in _ORDER else len(_ORDER)
    family = next((methods for methods, _ in _FAMILIES.values() if method in methods), (method,))
    return {
        "color": _COLOUR.get(method, _UNKNOWN),
        "marker": _MARKERS[place % len(_MARKERS)],
        "ls": ":" if method == CEILING else _LINES[family.index(method)],
    }
