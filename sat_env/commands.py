"""What train.py and eval.py share: input by name or file, one-line errors, the table. Needs the `train` extra."""

from __future__ import annotations

import hashlib
import inspect
import signal
import sys
import sysconfig
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sat_env.evaluation.report import results_table
from sat_env.evaluation.results import SCHEMA_VERSION, Results, Row, file_hash, this_run, write_results
from sat_env.evaluation.runner import evaluate, world_of
from sat_env.motion.elements import ElementsMover
from sat_env.policy import Policy
from sat_env.scenario import Elements, Scenario, ScenarioError, Surface, load_scenario, require
from sat_env.workload.profiles import config_dtype_bytes
from sat_env.world import load_model, prepare

if TYPE_CHECKING:
    from rich.console import Console

PROJECT = Path(__file__).resolve().parents[1]
OWN = ("sat_env", "agents", "baselines", "benchmarks", "train.py", "eval.py")
"""What the project folder holds that is the project's, unlike a virtual environment or a user's own code."""

LIBRARIES = {
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
}
"""Where neither the project's code is nor a user's."""

PROMPT_TOKENS, GENERATED_TOKENS = 512.0, 32.0
"""Of a request, where a language model takes the place of one for images."""


def fail_cleanly(main: Callable[[], None]) -> None:
    """Run a command: bad input ends it with one line on standard error and exit code 2.

    Only errors this project raised itself count as bad input; anything else keeps its traceback, and so does what
    a user's own code (a policy) was part of. A batch queue's SIGTERM ends it as Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except ValueError as error:
        files = [Path(frame.filename).resolve() for frame in traceback.extract_tb(error.__traceback__)[1:]]
        if not _is_own(files[-1]) or any(file.is_file() and _is_users(file) for file in files):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _is_own(file: Path) -> bool:
    return any(file.is_relative_to(PROJECT / own) for own in OWN)


def _is_users(file: Path) -> bool:
    return not _is_own(file) and not any(file.is_relative_to(folder) for folder in LIBRARIES)


def new_console() -> Console:
    """Return a console as wide as the terminal; in a pipe or file, wide enough for the table. Names are no markup."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 180, markup=False, highlight=False)


def resolve(scenario: str, elements: str | None = None, model: str | None = None) -> Scenario:
    """Return a scenario by name or file, on real satellites and with another model where asked.

    Raises
    ------
    ValueError
        Anything in the input that is not allowed; everything is checked before any work.
    """
    resolved = chosen(scenario, elements, model)
    try:
        prepare(resolved)
    except ScenarioError as error:
        if model is None or error.field != "payload.memory_bytes":
            raise
        raise ScenarioError(
            f"model = {model!r}: must fit satellites that hold as large a share of it as of the scenario's model, "
            f"or stand in a scenario file with a memory of its own ({error})"
        ) from None
    return resolved


def chosen(scenario: str, elements: str | None = None, model: str | None = None) -> Scenario:
    """Return what `resolve` does, its orbits and network not yet computed nor checked."""
    found = load_scenario(scenario)
    if elements is not None:
        require(Path(elements).is_file(), "elements", elements, "an existing OMM or TLE file")
        found = found.replace(motion=Elements(file=elements))
    return found if model is None else swap_model(found, model)


def swap_model(scenario: Scenario, model: str) -> Scenario:
    """Return the scenario with another model, its load and memory kept in proportion.

    Memory of a satellite scales with weights and KV cache, so that as many satellites hold the new model as held
    the old one; items of a job scale so that a job computes as many FLOPs, in no more micro-batches than there are
    requests. A language model in a scenario of images gets requests of `PROMPT_TOKENS` with `GENERATED_TOKENS` to
    generate. A config.json that states a number format brings it along.
    """
    is_llm = model.startswith(("llama", "qwen")) and not model.endswith(".csv")
    number: dict[str, float] = {}
    if model.endswith(".json"):
        require(Path(model).is_file(), "model", model, "a known name or an existing config.json")
        try:
            is_llm = '"vit"' not in Path(model).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ScenarioError(f"model = {model!r}: must be a config.json in UTF-8 ({error})") from None
        if (stated := config_dtype_bytes(Path(model))) is not None:
            number["model.dtype_bytes"] = float(stated)
    units = scenario.model.units
    whole = scenario.replace(**{"model.units": 0})
    kind = "llm" if is_llm else "images"
    changed = whole.replace(**{"model.profile": model, "jobs.kind": kind}, **number)
    if is_llm and scenario.jobs.kind == "images":
        tokens = {"jobs.prompt_tokens": PROMPT_TOKENS, "jobs.generated_tokens": GENERATED_TOKENS}
        changed = changed.replace(**tokens)
    items = max(1.0, round(scenario.jobs.items * _item_flops(whole) / _item_flops(changed)))
    changed = changed.replace(**{"jobs.items": items})
    if is_llm:
        changed = changed.replace(**{"jobs.micro_batches": min(scenario.jobs.micro_batches, int(items))})
    growth = _model_bytes(changed) / _model_bytes(whole)
    return changed.replace(
        **{
            "model.units": min(units, load_model(changed).n_blocks),
            "payload.memory_bytes": scenario.payload.memory_bytes * growth,
            "ground.memory_bytes": scenario.ground.memory_bytes * growth,
        }
    )


def _item_flops(scenario: Scenario) -> float:
    """Return the FLOPs of an image, or of a request's prompt."""
    per_item = float(load_model(scenario).flops_per_item.sum())
    return per_item * (scenario.jobs.prompt_tokens if scenario.jobs.kind == "llm" else 1.0)


def _model_bytes(scenario: Scenario) -> float:
    """Return weights and the KV cache of the largest job."""
    profile, jobs = load_model(scenario), scenario.jobs
    tokens = jobs.items * (1 + jobs.burst) * (jobs.prompt_tokens + jobs.generated_tokens)
    return float((profile.weight_bytes + profile.kv_bytes_per_token * tokens).sum())


def describe_input(scenario: Scenario) -> list[str]:
    """Return what a run stands on, a line each."""
    prepared = prepare(scenario)
    contacts, profile = prepared.contacts, prepared.profile
    node = scenario.motion.mover if isinstance(scenario.motion, Surface) else "satellite"
    return [
        f"{scenario.name} ({scenario.hash()}): {contacts.n_nodes} {node}s from "
        f"{contacts.start_utc:%Y-%m-%d %H:%M:%S} UTC, {scenario.chain.slots} slots, "
        f"{profile.name} in {profile.n_blocks} parts of {np.mean(profile.weight_bytes) / 1e6:.0f} MB",
        f"a job: {scenario.jobs.items:.0f} {'requests' if scenario.jobs.kind == 'llm' else 'images'} every "
        f"{scenario.epoch_s:.0f} s, deadline {scenario.jobs.deadline_s:.0f} s; a {node} holds "
        f"{scenario.payload.memory_bytes / 1e9:.2f} GB; levels {', '.join(prepared.levels)}",
        f"accuracy lost by compressing is borrowed from the table {scenario.model.compression} (docs/compression.md)",
        *_left_out(scenario),
    ]


def _left_out(scenario: Scenario) -> list[str]:
    """Return a line on the satellites of an element file that fly in another shell; none if there are none."""
    if not isinstance(scenario.motion, Elements):
        return []
    with warnings.catch_warnings(action="ignore"):  # of stale elements was warned when the world was prepared
        names = ElementsMover.from_file(scenario.motion).left_out
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return [f"left out of {scenario.motion.file}: {len(names)} of another shell ({some})"] if names else []


def file_to_write(out: str) -> Path:
    """Return the path of a file to write; refuse a folder, and a path in none."""
    path = Path(out)
    require(
        path.parent.is_dir() and not path.is_dir(), "out", out, "the path of a file in an existing folder"
    )
    return path


def show_and_write(
    console: Console,
    policies_for: Callable[[Scenario], Sequence[Policy]],
    scenarios: Sequence[Scenario],
    count: int,
    seed: int,
    out: Path | None,
) -> None:
    """Play every policy on the same test episodes, print the table, write the results file.

    An interruption or an error is passed on once the rows played before it are shown and written.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    policies = {scenario.name: policies_for(scenario) for scenario in scenarios}
    require(len(policies) == len(scenarios), "scenarios", [s.name for s in scenarios], "of different names")
    for found in policies.values():
        names = [policy.name for policy in found]
        require(len(set(names)) == len(names), "agents", names, "of different names")
    entries = {name: {p.name: entry_hash(p) for p in found} for name, found in policies.items()}
    rows: list[Row] = []
    total = sum(len(found) for found in policies.values()) * count
    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=total)
            for scenario in scenarios:
                for row in evaluate(policies[scenario.name], scenario, count, seed):
                    rows.append(row)
                    progress.advance(task)
    except (KeyboardInterrupt, Exception) as error:
        how = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        each = Counter((row.scenario, row.entry) for row in rows)
        unlike = ", ".join(f"{entry} on {name} {n}" for (name, entry), n in each.items() if n < count)
        console.print(
            f"{how}: {len(rows)} of {total} episodes played"
            + (f", of {count} each: {unlike}" if unlike else ""),
            soft_wrap=True,
        )
        raise
    finally:
        if rows:
            console.print(results_table(rows, console.width))
        if rows and out is not None:
            write_results(out, results_of(rows, scenarios, entries))
            console.print(f"results: {out}", soft_wrap=True)


def results_of(
    rows: Sequence[Row], scenarios: Sequence[Scenario], entries: dict[str, dict[str, str]]
) -> Results:
    """Return what a results file says of rows; `entries` are hashes by scenario and entry."""
    worlds = {s.name: world_of(s) for s in scenarios if any(row.scenario == s.name for row in rows)}
    played = {(row.scenario, row.entry) for row in rows}
    hashes = {name: {e: h for e, h in entries[name].items() if (name, e) in played} for name in worlds}
    return Results(SCHEMA_VERSION, hashes, worlds, (this_run(sys.argv),), tuple(rows))


def entry_hash(policy: Policy) -> str:
    """Return the SHA-256 that tells a policy from others of its name; of what: see `sat_env.policy.Policy`."""
    kind = type(policy)
    if not hasattr(policy, "path") and hasattr(policy, "settings"):
        text = f"{kind.__module__}.{kind.__qualname__} {policy.name} {policy.settings!r}"
        return hashlib.sha256(text.encode()).hexdigest()
    return file_hash(getattr(policy, "path", None) or inspect.getfile(kind))
