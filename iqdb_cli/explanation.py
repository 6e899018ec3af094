"""How a search was answered, in lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqdb_cli.sizes import counted

if TYPE_CHECKING:
    from iqdb_core.explain import SearchExplanation

_PLANS = {
    "scan": "compared every candidate",
    "graph": "walked the graph",
    "matches": "walked the graph over matching rows",
    "lists": "visited lists",
    "none": "nothing to search in the file",
}


def explanation_lines(explanation: SearchExplanation) -> list[str]:
    """Return lines of a label and a text; they begin alike, so that they can be told from hits."""
    rows = [
        ("index", explanation.index),
        ("plan", f"{explanation.plan}: {_PLANS.get(explanation.plan, explanation.plan)}"),
        ("exact", "yes" if explanation.exact else "no"),
        (
            "queries",
            f"{explanation.n_queries:,}, k {explanation.k:,}, {counted(explanation.threads, 'thread')}",
        ),
        ("records", f"{explanation.n_records:,}, {explanation.matched:,} match"),
        (
            "file",
            f"{counted(explanation.candidates, 'candidate')}, {counted(explanation.tombstones, 'tombstone')}",
        ),
        ("log", f"{counted(explanation.delta_rows, 'record')} compared with each query"),
    ]
    work = f"{explanation.scored:,} vectors compared"
    if explanation.plan not in {"scan", "none"}:
        work = f"breadth {explanation.breadth:,}, {explanation.visited:,} codes and {work}"
    if explanation.rescanned:
        work += f", then every candidate for {explanation.rescanned:,} of the queries"
    rows.append(("work", work))
    times = [
        f"{part} {_milliseconds(getattr(explanation, part + '_seconds'))}"
        for part in ("filter", "index", "delta", "merge", "metadata")
    ]
    rows.append(("time", f"{_milliseconds(explanation.seconds)}: {', '.join(times)}"))
    return [f"explain: {label:8}{text}" for label, text in rows]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3f} ms"
