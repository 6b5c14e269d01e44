"""The example production: real event generators, a parametrised detector, raw AO2D files."""
