"""The results file: who was measured, on which worlds, by which code, and what came out, episode by episode.

One JSON object. Entries and worlds carry hashes, so that a changed policy or a silent change of the dynamics
shows; each row names the run that produced it, so that files from several machines can be merged.
"""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
import subprocess
import sys
import types
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from sat_env.evaluation.metrics import EpisodeMetrics

SCHEMA_VERSION = 4  # 2: test episodes whose traces training met; 3: nothing told how the worlds move
PACKAGES = (
    "sat-env",
    "gymnasium",
    "numpy",
    "numba",
    "scipy",
    "skyfield",
    "sgp4",
    "torch",
    "stable-baselines3",
)


@dataclass(frozen=True)
class World:
    """Where episodes ran."""

    environment_id: str | None  # None where no registered environment is this scenario
    scenario_hash: str
    trace_hash: str  # of a fixed trace: it catches silent changes of the exogenous streams
    play_hash: str  # of an episode under a fixed plan: what is seen and what comes of it


@dataclass(frozen=True)
class Run:
    """What produced rows."""

    command: tuple[str, ...]
    packages: dict[str, str]  # name: version
    git_commit: str | None  # None outside a checkout
    git_dirty: bool | None


@dataclass(frozen=True)
class Row:
    """One episode of one entry."""

    entry: str
    scenario: str
    seed: int
    episode: int
    run: int  # index into the file's runs
    metrics: EpisodeMetrics


@dataclass(frozen=True)
class Results:
    """Content of a results file."""

    schema_version: int
    entries: dict[str, dict[str, str]]  # scenario name: entry name: hash, see `sat_env.policy.Policy`
    worlds: dict[str, World]  # scenario name: world
    runs: tuple[Run, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        seen = set()
        for number, row in enumerate(self.rows):
            for field, value, allowed in (
                ("scenario", row.scenario, self.worlds),
                ("entry", row.entry, self.entries.get(row.scenario, {})),
                ("run", row.run, range(len(self.runs))),
            ):
                if value not in allowed:
                    names = ", ".join(map(str, allowed))
                    raise ValueError(f"rows[{number}].{field} is {value!r}; allowed: {names}")
            key = (row.entry, row.scenario, row.seed, row.episode)
            if key in seen:
                raise ValueError(
                    f"rows[{number}] repeats {key}; allowed: each (entry, scenario, seed, episode) once"
                )
            seen.add(key)


def this_run(command: Sequence[str]) -> Run:
    """Describe the running code: package versions, and the commit of its checkout if it is one."""
    packages = {"python": python_version()}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", Path(__file__).name) else None
    changes = None if commit is None else _git("status", "--porcelain", "--untracked-files=no", ":/")
    return Run(tuple(command), packages, commit, None if changes is None else bool(changes))


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_results(path: str | Path, results: Results) -> None:
    """Write a results file in one step: readers see the old file or the whole new one.

    Raises
    ------
    ValueError
        If the folder does not exist, or a number is not finite.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise ValueError(f"results file is {str(path)!r}; allowed: a path in an existing folder")
    text = json.dumps(asdict(results), indent=1, allow_nan=False) + "\n"
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load_results(path: str | Path) -> Results:
    """Read and check a results file.

    Raises
    ------
    ValueError
        If the file cannot be read, is of another schema version, or a field is missing, unknown or of the
        wrong type.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"results file is {str(path)!r}; allowed: a readable JSON file ({error})") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema_version is {version!r}; allowed: {SCHEMA_VERSION}")
    try:
        results: Results = _decode(Results, content, "results")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return results


def merge(parts: Iterable[Results]) -> Results:
    """Join results of several runs. An episode that two of them played with the same outcome counts once.

    Raises
    ------
    ValueError
        If an entry has two different hashes on a scenario, or a scenario has, or an episode has two outcomes.
    """
    entries: dict[str, dict[str, str]] = {}
    worlds: dict[str, World] = {}
    runs: list[Run] = []
    rows: list[Row] = []
    outcomes: dict[tuple[str, str, int, int], EpisodeMetrics] = {}
    for part in parts:
        for scenario, of_scenario in part.entries.items():
            _join(f"entries[{scenario!r}]", entries.setdefault(scenario, {}), of_scenario)
        _join("worlds", worlds, part.worlds)
        for row in part.rows:
            key = (row.entry, row.scenario, row.seed, row.episode)
            outcome = replace(row.metrics, decision_p50_ms=0.0, decision_p99_ms=0.0)  # but for the clock
            if outcomes.setdefault(key, outcome) != outcome:
                raise ValueError(f"row {key} is in two files with two outcomes; allowed: the same outcome")
            if outcomes[key] is outcome:
                rows.append(replace(row, run=row.run + len(runs)))
        runs += part.runs
    return Results(SCHEMA_VERSION, entries, worlds, tuple(runs), tuple(rows))


ValueT = TypeVar("ValueT")

JSON_NAMES = {
    dict: "an object",
    tuple: "a list",
    float: "a finite number",
    int: "an integer",
    str: "a string",
    bool: "true or false",
}


def _join(field: str, into: dict[str, ValueT], more: dict[str, ValueT]) -> None:
    for name, value in more.items():
        if into.setdefault(name, value) != value:
            raise ValueError(f"{field}[{name!r}] is {value}; allowed: {into[name]}, as in the other file")


def _git(*arguments: str) -> str | None:
    """Output of git beside this file; None where git fails or is absent."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _decode(kind: Any, value: Any, where: str) -> Any:
    """Turn parsed JSON into `kind`: a dataclass, dict[str, X], tuple[X, ...], X | None, or a plain type."""
    arguments = get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is a {type(value).__name__}; allowed: an object")
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        for name in (*names, *value):
            if (name in value) != (name in names):
                state = "unknown" if name in value else "missing"
                raise ValueError(f"{where}.{name} is {state}; allowed: exactly {', '.join(names)}")
        decoded = {name: _decode(hints[name], value[name], f"{where}.{name}") for name in names}
        try:
            return kind(**decoded)
        except ValueError as error:  # it names the field first
            raise ValueError(f"{where}.{error}") from None
    if get_origin(kind) in (Union, types.UnionType):
        return None if value is None else _decode(arguments[0], value, where)
    if get_origin(kind) is dict and isinstance(value, dict):
        return {name: _decode(arguments[1], item, f"{where}[{name!r}]") for name, item in value.items()}
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where} is {reprlib.repr(value)}; allowed: {JSON_NAMES[get_origin(kind) or kind]}")
