"""Packages that only some options need, and refusing those options where they are missing."""

from __future__ import annotations

import importlib.util
from typing import Literal

Backend = Literal["loky", "ray", "dask"]


def require_packages(option: str, names: tuple[str, ...], install: str) -> None:
    """Refuse an option before any work if a package it needs is missing.

    Raises
    ------
    ValueError
        Names the option, the package and how to install it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{option}: needs the package {name}, which is not installed: {install}")


def check_backend(backend: Backend) -> None:
    """Refuse a joblib backend whose package is missing."""
    if backend == "ray":
        require_packages("backend = 'ray'", ("ray",), "python -m pip install ray")
    elif backend == "dask":
        require_packages(
            "backend = 'dask'", ("dask", "distributed"), "python -m pip install 'dask[distributed]'"
        )
