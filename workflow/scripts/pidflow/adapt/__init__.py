"""Adaptation of models to a run's own data, none of whose labels is ever used."""
