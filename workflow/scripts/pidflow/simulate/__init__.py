"""The example production: real event generators, a parametrised detector, raw AO2D files."""

from pidflow.simulate.production import simulate_file

__all__ = ["simulate_file"]
