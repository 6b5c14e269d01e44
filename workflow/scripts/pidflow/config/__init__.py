"""Configuration and run table, validated."""

from pidflow.config.batches import Batch, batches
from pidflow.config.models import Config, load, validate
from pidflow.config.runs import Run, RunTable, check_runs, file_key, load_runs

__all__ = ["Batch", "Config", "Run", "RunTable", "batches", "check_runs", "file_key", "load", "load_runs", "validate"]
