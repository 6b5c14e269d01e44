"""Metrics with intervals, and the figures that show them."""
