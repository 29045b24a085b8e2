"""Measurements, each started with `python -m`; no test asserts a time."""
