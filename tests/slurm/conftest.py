"""One cluster and one undisturbed production by the local executor, shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import Checkout
from cluster import Cluster, cluster, what_is_missing
from production import RUNS, Production, copied, published, small_checkout


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A controller and two nodes on this machine."""
    if missing := what_is_missing():
        pytest.fail(missing, pytrace=False)
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def laptop(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout that the local executor has processed; not before the cluster is known to work."""
    checkout = small_checkout(tmp_path_factory.mktemp("laptop"))
    done = checkout.snakemake("--", *published(*RUNS))
    assert done.returncode == 0, done.stdout[-5000:]
    return checkout


@pytest.fixture
def production(slurm: Cluster, laptop: Checkout, tmp_path: Path) -> Iterator[Production]:
    """A copy of what the laptop made, for the cluster; tests remove what is to be made anew."""
    (tmp_path / "orders").mkdir()
    production = Production(copied(laptop, tmp_path / "checkout"), slurm, tmp_path / "orders")
    yield production
    production.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show with a failed test what Snakemake and Slurm wrote."""
    report = yield
    if report.failed and report.when == "call":
        for production in item.funcargs.values():
            if isinstance(production, Production):
                report.sections.append(("Snakemake and Slurm", production.told()))
    return report
