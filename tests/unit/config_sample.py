"""Parts of configurations and of run tables for their tests."""

from typing import Any

HEADER = ("run", "period", "pass", "system", "year", "bz", "data", "simulation", "valid_from", "valid_until")
MODELS: dict[str, Any] = {"nsigma": {}, "gbdt": {}, "fse": {}}


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with another laid over it, as the workflow engine does."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def with_models(**models: Any) -> dict[str, Any]:
    return {"models": MODELS | models}


def candidates(**chains: list[str]) -> dict[str, Any]:
    return {"candidates": chains}


UNADAPTED = {"adapt": {"method": "none"}, "publish": {"model": "fse"}}
