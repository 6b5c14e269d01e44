"""Configuration and run table, validated."""

from pidflow.config.models import Config, load, validate
from pidflow.config.runs import Run, check_runs, file_key, load_runs

__all__ = ["Config", "Run", "check_runs", "file_key", "load", "load_runs", "validate"]
