"""Particle identification for ALICE, run by run: the library behind the workflow's scripts."""
