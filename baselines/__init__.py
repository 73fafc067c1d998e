"""Planners and schedules behind the one policy protocol. `make(name)` builds one; `NAMES` lists them."""

from baselines.registry import NAMES, describe, make

__all__ = ["NAMES", "describe", "make"]
