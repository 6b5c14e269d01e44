"""A small production of both example runs, made once by the workflow itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkout import Checkout, copy_repository


@pytest.fixture(scope="session")
def production(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Both example runs, processed. Tests that change a file put it back."""
    checkout = copy_repository(tmp_path_factory.mktemp("production"))
    done = checkout.snakemake()
    assert done.returncode == 0, done.stdout[-5000:]
    return checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A copy of the repository in which nothing has run."""
    return copy_repository(tmp_path)
