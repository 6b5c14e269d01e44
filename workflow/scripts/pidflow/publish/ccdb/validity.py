"""The time a run was taken, as the CCDB knows it."""

from __future__ import annotations

from pidflow.errors import PidflowError
from pidflow.publish.ccdb.client import Client

_RUN_INFORMATION = "RCT/Info/RunInformation"
_LIMITS = (("STF", "ETF"), ("SOX", "EOX"), ("SOR", "EOR"))


def run_validity(client: Client, run: int) -> tuple[int, int]:
    """Return start and end of a run in ms since 1970.

    The first and last time frame are preferred, then the start and end of trigger, then those of the run.

    Raises
    ------
    PidflowError
        If the CCDB knows no such run or no times of it.
    """
    found = client.head(_RUN_INFORMATION, run)
    if found is None:
        raise PidflowError(
            f"{client.url}/{_RUN_INFORMATION}/{run}: the run is not known; set valid_from and valid_until in the run"
            " table"
        )
    for first, last in _LIMITS:
        limits = [str(found.fields.get(key, "")) for key in (first, last)]
        if all(limit.isascii() and limit.isdigit() for limit in limits) and 0 < int(limits[0]) < int(limits[1]):
            return int(limits[0]), int(limits[1])
    raise PidflowError(
        f"{client.url}/{_RUN_INFORMATION}/{run}: it has no times of the run; set valid_from and valid_until in the run"
        " table"
    )
