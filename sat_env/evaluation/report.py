"""Tables of results: the same columns for a terminal and for a document.

    python -m sat_env.evaluation.report mine.json theirs.json

prints the leaderboard of results files as Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sat_env.evaluation.metrics import EpisodeMetrics
from sat_env.evaluation.results import Row, load_results, merge

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Summary:
    """One entry on one scenario, over its episodes."""

    scenario: str
    entry: str
    n_episodes: int
    n_jobs: int
    j_s: float  # mean over jobs, as is everything below but percentiles and accuracy
    latency_mean_s: float | None  # over jobs delivered within the accuracy limit
    latency_p50_s: float | None  # mean of the episodes' medians
    latency_p95_s: float | None  # mean of the episodes' 95th percentiles
    bytes_per_job: float
    drop_share: float
    over_limit_share: float
    accuracy_drop: float | None  # over delivered jobs
    energy_j_per_job: float
    reload_bytes_per_job: float
    decision_p50_ms: float  # mean of the episodes' medians


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Summaries by scenario in order of appearance, and by J within each, best first."""
    episodes: dict[str, dict[str, list[EpisodeMetrics]]] = {}
    for row in rows:
        episodes.setdefault(row.scenario, {}).setdefault(row.entry, []).append(row.metrics)
    return [
        summary
        for scenario, by_entry in episodes.items()
        for summary in sorted(
            (_summary(scenario, entry, metrics) for entry, metrics in by_entry.items()),
            key=lambda one: one.j_s,
        )
    ]


def results_table(rows: Sequence[Row], width: int = 200) -> Table:
    """Build a rich table of `summarise`, one section a scenario. Needs the `train` extra.

    Where `width` characters do not hold all columns, those of `LEAST_TELLING` are left out, and named below.
    """
    from rich.table import Table
    from rich.text import Text

    summaries = summarise(rows)
    widths = {
        header: max(len(part) for part in (*header.split(), *(cell(one) for one in summaries)))
        for header, cell in COLUMNS
    }
    shown, left_out = dict(COLUMNS), []
    for header in LEAST_TELLING:
        if 1 + sum(widths[name] + 3 for name in shown) > width:
            left_out.append(header)
            del shown[header]
    caption = f"too narrow for: {', '.join(left_out)}" if left_out else None
    table = Table(caption=caption, caption_justify="left")
    for i, header in enumerate(shown):
        table.add_column(header, justify="left" if i < 2 else "right", min_width=widths[header])
    for summary, following in zip(summaries, [*summaries[1:], None], strict=True):
        table.add_row(
            *(Text(cell(summary)) for cell in shown.values()),  # names are no markup
            end_section=following is None or following.scenario != summary.scenario,
        )
    return table


def leaderboard_markdown(rows: Sequence[Row]) -> str:
    """Build a Markdown table of `summarise`."""
    lines = [
        [header for header, _ in COLUMNS],
        ["---", "---", *("---:" for _ in COLUMNS[2:])],
        # Names may hold anything, but make neither columns nor rows.
        *(
            [" ".join(cell(one).split()).replace("|", "\\|") for _, cell in COLUMNS]
            for one in summarise(rows)
        ),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main(paths: Sequence[str]) -> None:
    """Print the leaderboard of results files.

    Raises
    ------
    ValueError
        No file, one that is none, files that cannot be merged, or entries that did not play the same episodes.
    """
    if not paths:
        raise ValueError("results files = []: must be one or more paths")
    rows = merge(load_results(path) for path in paths).rows
    jobs: dict[tuple[str, int, int], int] = {}
    for row in rows:
        n_jobs = jobs.setdefault((row.scenario, row.seed, row.episode), row.metrics.n_jobs)
        if row.metrics.n_jobs != n_jobs:
            raise ValueError(
                f"n_jobs of {row.entry!r} on {row.scenario}, episode {row.episode}: {row.metrics.n_jobs}; "
                f"must be {n_jobs}, as of the others"
            )
    played: dict[str, dict[str, set[tuple[int, int]]]] = {}
    for row in rows:
        played.setdefault(row.scenario, {}).setdefault(row.entry, set()).add((row.seed, row.episode))
    for scenario, by_entry in played.items():
        (first, episodes), *others = by_entry.items()
        for entry, theirs in others:
            if theirs != episodes:
                raise ValueError(
                    f"episodes of {entry!r} on {scenario}: {len(theirs)}, not all of them those of {first!r} "
                    f"({len(episodes)}); must be of the same seeds and numbers"
                )
    print(leaderboard_markdown(rows), end="")


def _summary(scenario: str, entry: str, episodes: list[EpisodeMetrics]) -> Summary:
    jobs = np.array([one.n_jobs for one in episodes])

    def per_job(field: str) -> float:
        return float(sum(getattr(one, field) for one in episodes) / jobs.sum())

    def over(count: str, field: str, weighted: bool = True) -> float | None:
        """Mean over the episodes that have such jobs, by their count or by episodes."""
        some = [one for one in episodes if getattr(one, count)]
        if not some:
            return None
        weights = [getattr(one, count) for one in some] if weighted else None
        return float(np.average([getattr(one, field) for one in some], weights=weights))

    return Summary(
        scenario=scenario,
        entry=entry,
        n_episodes=len(episodes),
        n_jobs=int(jobs.sum()),
        j_s=float(np.average([one.j_s for one in episodes], weights=jobs)),
        latency_mean_s=over("n_within_limit", "latency_mean_s"),
        latency_p50_s=over("n_within_limit", "latency_p50_s", weighted=False),
        latency_p95_s=over("n_within_limit", "latency_p95_s", weighted=False),
        bytes_per_job=per_job("sent_bytes"),
        drop_share=per_job("n_dropped"),
        over_limit_share=per_job("n_over_limit"),
        accuracy_drop=over("n_delivered", "accuracy_drop"),
        energy_j_per_job=per_job("energy_j"),
        reload_bytes_per_job=per_job("reload_bytes"),
        decision_p50_ms=float(np.mean([one.decision_p50_ms for one in episodes])),
    )


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else format(value, pattern)


# header and cell of each column, the first two text
COLUMNS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("scenario", lambda one: one.scenario),
    ("policy", lambda one: one.entry),
    ("J s", lambda one: _number(one.j_s, ".3f")),
    ("latency mean s", lambda one: _number(one.latency_mean_s, ".3f")),
    ("p50 s", lambda one: _number(one.latency_p50_s, ".3f")),
    ("p95 s", lambda one: _number(one.latency_p95_s, ".3f")),
    ("MB/job", lambda one: _number(one.bytes_per_job / 1e6, ".2f")),
    ("drops %", lambda one: _number(100 * one.drop_share, ".1f")),
    ("over limit %", lambda one: _number(100 * one.over_limit_share, ".1f")),
    (
        "accuracy drop %",
        lambda one: "-" if one.accuracy_drop is None else _number(100 * one.accuracy_drop, ".2f"),
    ),
    ("joules/job", lambda one: _number(one.energy_j_per_job, ".1f")),
    ("reload MB/job", lambda one: _number(one.reload_bytes_per_job / 1e6, ".1f")),
    ("ms/decision", lambda one: _number(one.decision_p50_ms, ".3f")),
)
LEAST_TELLING = (
    "reload MB/job", "p50 s", "ms/decision", "joules/job", "p95 s", "over limit %", "latency mean s", "accuracy drop %",
    "MB/job",
)  # fmt: skip
"""Columns that a narrow terminal goes without, the first ones first."""


if __name__ == "__main__":
    from sat_env.commands import fail_cleanly

    parser = argparse.ArgumentParser(description="Print the leaderboard of results files as Markdown.")
    parser.add_argument(
        "results", nargs="*", help="files of eval.py and train.py, of the same worlds and episodes"
    )
    fail_cleanly(lambda: main(parser.parse_args().results))
