"""Slow, independent models that the package is checked against."""
