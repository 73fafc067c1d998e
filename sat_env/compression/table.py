"""What compressing an activation costs: bits per entry, codec time, and error at every cut of a model.

A table is measured on one network and carried to another by *relative depth*: the error of a cut after block
l of L is the one measured at depth l / L. It says so in its provenance; for a network other than the one
measured the errors are borrowed, not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT32_BITS = 32.0
FORMAT = "sat_env compression table 1"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """One way to encode an activation where it leaves a satellite.

    Attributes
    ----------
    name : str
        As in the recipes of `sat_env.compression.codec`.
    keep : float
        Fraction of the entries that is kept, in (0, 1].
    bits : int
        Bits of the number format of a kept entry.
    bits_per_entry : float
        Coded bits per entry of the whole activation (mask, values, entropy coding), counted on real bytes.
    encode_entries_per_s, decode_entries_per_s : float
        Measured throughput of the codec on one CPU core, in entries; infinite where there is no codec.
    """

    name: str
    keep: float
    bits: int
    bits_per_entry: float
    encode_entries_per_s: float
    decode_entries_per_s: float


@dataclass(frozen=True)
class CompressionTable:
    """Levels, their error by depth, and the accuracy that a summed error costs.

    Attributes
    ----------
    name : str
        Profile, such as ``digits-vit``.
    levels : tuple of Level, length R
        Level 0 is lossless.
    positions : (n,) float
        Relative depth of the measured cuts, in 0..1, increasing.
    errors : (n, R) float
        Error that one encoding adds there, in nats of KL divergence to the uncompressed output, for an input
        of content complexity 1. Column 0 is zero.
    drop_knots : (2, m) float
        Summed error (row 0) and accuracy drop as a fraction (row 1), both increasing from 0.
    provenance : mapping
        Where each figure comes from: command, seed, versions, or a public source.
    """

    name: str
    levels: tuple[Level, ...]
    positions: Floats
    errors: Floats
    drop_knots: Floats
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse a table that breaks a promise above."""
        where = f"compression table {self.name!r}"
        n, ranks = len(self.positions), len(self.levels)
        if ranks == 0:
            raise ValueError(f"{where}: levels is empty, at least one is needed")
        for level in self.levels:
            if not (0 < level.keep <= 1 and level.bits >= 1 and 0 < level.bits_per_entry < np.inf):
                raise ValueError(
                    f"{where}: level {level.name!r} has keep {level.keep}, bits {level.bits}, bits_per_entry "
                    f"{level.bits_per_entry}; allowed are keep in (0, 1], bits >= 1, bits_per_entry > 0 and finite"
                )
            if not (level.encode_entries_per_s > 0 and level.decode_entries_per_s > 0):
                raise ValueError(
                    f"{where}: level {level.name!r} has codec throughput "
                    f"{level.encode_entries_per_s}, {level.decode_entries_per_s}; both must be > 0"
                )
        if len({level.name for level in self.levels}) != ranks:
            raise ValueError(f"{where}: level names must differ from each other")
        if self.positions.ndim != 1 or n == 0 or not _increasing(self.positions, 0.0, 1.0):
            raise ValueError(f"{where}: positions must increase within 0..1, got {self.positions.tolist()}")
        if self.errors.shape != (n, ranks):
            raise ValueError(f"{where}: errors has shape {self.errors.shape}, allowed is {(n, ranks)}")
        if not (np.isfinite(self.errors).all() and (self.errors >= 0).all() and not self.errors[:, 0].any()):
            raise ValueError(f"{where}: errors must be finite and >= 0, with zeros in column 0")
        knots = self.drop_knots
        if (
            knots.ndim != 2
            or len(knots) != 2
            or knots.shape[1] < 2
            or not np.isfinite(knots).all()
            or not _increasing(knots[0], 0.0, np.inf)
            or not (np.diff(knots[1]) >= 0).all()
            or knots[:, 0].any()
            or not 0 < knots[1, -1] <= 1
        ):
            raise ValueError(
                f"{where}: drop_knots must be two rows that start at 0, an increasing error and a "
                f"non-decreasing drop that ends in (0, 1], got {knots.tolist()}"
            )
        for array in (self.positions, self.errors, self.drop_knots):
            array.setflags(write=False)

    def ratios(self) -> Floats:
        """Return the compression ratio (R,) of each level against 32-bit entries."""
        return np.array([FLOAT32_BITS / level.bits_per_entry for level in self.levels])

    def error_at(self, n_blocks: int) -> Floats:
        """Return the error of encoding at boundary l = 0..n_blocks of a model with that many blocks.

        Parameters
        ----------
        n_blocks : int
            Blocks of the model, at least 1.

        Returns
        -------
        (n_blocks + 1, R) float
            Linear in relative depth between measured cuts, constant beyond the outermost. Rows 0 and n_blocks
            are zero: raw input and result are never encoded with loss.
        """
        if n_blocks < 1:
            raise ValueError(f"n_blocks is {n_blocks}, allowed is >= 1")
        depth = np.arange(n_blocks + 1) / n_blocks
        errors = np.stack([np.interp(depth, self.positions, column) for column in self.errors.T], axis=1)
        errors[[0, -1]] = 0.0
        return errors

    def accuracy_drop(self, total_error: float | Floats) -> Floats:
        """Return the accuracy drop (a fraction) of a summed error; the last slope goes on, to at most 1."""
        x, y = self.drop_knots
        total = np.asarray(total_error, dtype=np.float64)
        slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
        beyond = y[-1] + slope * np.maximum(total - x[-1], 0.0)
        drop: Floats = np.minimum(np.where(total > x[-1], beyond, np.interp(total, x, y)), 1.0)
        return drop

    def error_budget(self, max_drop: float) -> float:
        """Return the largest summed error whose accuracy drop is at most `max_drop` (a fraction, >= 0)."""
        if not max_drop >= 0:
            raise ValueError(f"max_drop is {max_drop}, allowed is a fraction >= 0")
        x, y = self.drop_knots
        k = int(np.searchsorted(y, max_drop, side="right"))  # y[k-1] <= max_drop < y[k]
        k = min(k, len(x) - 1)  # beyond the last knot its slope goes on
        if max_drop >= 1 or y[k] == y[k - 1]:
            return np.inf
        budget = x[k - 1] + (max_drop - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1])
        while self.accuracy_drop(budget) > max_drop:  # the division's last bits
            budget = np.nextafter(budget, 0.0)
        return float(budget)


def load_table(source: str | Path) -> CompressionTable:
    """Load a table.

    Parameters
    ----------
    source : str or Path
        Name of a shipped profile (see `table_names`), or path of a JSON file.

    Raises
    ------
    ValueError
        If there is no such profile or file, or it is malformed; the message names what.
    """
    path: Any = Path(source)
    if str(source) in table_names():
        path = files(__package__) / "tables" / f"{source}.json"
    elif not path.is_file():
        raise ValueError(
            f"compression table {str(source)!r} is neither a file nor a shipped profile "
            f"({', '.join(table_names())})"
        )
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"compression table {str(source)!r} is not JSON: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"compression table {str(source)!r} is malformed: {reason}") from error
    except ValueError as error:
        if str(error).startswith("compression table"):
            raise
        raise ValueError(f"compression table {str(source)!r} is malformed: {error}") from error


def table_names() -> tuple[str, ...]:
    """Names of the shipped profiles."""
    folder = files(__package__) / "tables"
    return tuple(sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json")))


def save_table(table: CompressionTable, path: Path) -> None:
    """Write a table as JSON that `load_table` reads back; figures rounded to 6 digits."""
    record = {"format": FORMAT, **table_plain(table), "provenance": _rounded(dict(table.provenance))}
    path.write_text(_one_row_a_line(json.dumps(record, indent=1)) + "\n", encoding="utf-8")


def table_plain(table: CompressionTable) -> dict[str, Any]:
    """Return what a table says, without where it comes from, as plain data; figures rounded to 6 digits."""
    return {
        "name": table.name,
        "levels": [_rounded(asdict(level)) for level in table.levels],
        "positions": _rounded(table.positions.tolist()),
        "errors": _rounded(table.errors.tolist()),
        "drop_knots": _rounded(table.drop_knots.tolist()),
    }


def _from_json(record: Mapping[str, Any]) -> CompressionTable:
    if record["format"] != FORMAT:
        raise ValueError(f"compression table: format is {record['format']!r}, allowed is {FORMAT!r}")
    return CompressionTable(
        name=record["name"],
        levels=tuple(_level(level) for level in record["levels"]),
        positions=np.array(record["positions"], dtype=np.float64),
        errors=np.array(record["errors"], dtype=np.float64),
        drop_knots=np.array(record["drop_knots"], dtype=np.float64),
        provenance=record["provenance"],
    )


def _level(record: Mapping[str, Any]) -> Level:
    known: dict[str, Any] = {key: np.inf if value is None else value for key, value in record.items()}
    return Level(**known)


def _rounded(value: Any) -> Any:
    """Round the floats in a JSON value to 6 significant digits; infinity, which JSON lacks, becomes null."""
    if isinstance(value, float):
        return None if np.isinf(value) else float(f"{value:.6g}")
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


def _one_row_a_line(text: str) -> str:
    """Join the lines of the innermost lists of indented JSON, so that a table row is one line."""
    lines: list[str] = []
    inner = False
    for line in text.splitlines():
        stripped = line.strip()
        if inner and not stripped.startswith(("[", "{")):
            lines[-1] += stripped if stripped.startswith("]") else stripped + " " * stripped.endswith(",")
            inner = not stripped.startswith("]")
        else:
            lines.append(line)
            inner = stripped.endswith("[")
    return "\n".join(line.replace(", ]", "]") for line in lines)


def _increasing(values: Floats, low: float, high: float) -> bool:
    return bool(np.all(np.diff(values) > 0) and values[0] >= low and values[-1] <= high)
