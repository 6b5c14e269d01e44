"""Calibration of the simulated detector response to data, without labels."""
