"""Rows as markdown: cases and protocols down, methods across, means at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
MARGIN = 0.005  # Dice that a result may lie below growing without being flagged
REFERENCE, OURS = "grow", "sparseseg"
SHORT = {"missing": "missing", "failed": "failed", "not applicable": "-"}


def dice_table(rows: Sequence[Row]) -> str:
    """Mean Dice, the difference to growing, a flag where it is below -MARGIN, and the estimate beside the truth."""
    extra = {"ours - grow": difference, "flag": flag, "estimate": estimate, "off by": estimate_error}
    return metric_table(rows, "dice", 3, extra if any(r["method"] == OURS for r in rows) else {})


def metric_table(rows: Sequence[Row], metric: str, digits: int, extra: dict[str, Callable[[dict[str, Row]], Any]] | None = None) -> str:
    """metric: the key of a number, or of {"mean": number}. A mean over fewer pairs than there are says over how many."""
    methods, pairs = list(dict.fromkeys(r["method"] for r in rows)), pairs_of(rows)
    head = ["case", "annotation", *methods, *(extra or {})]
    lines = [[*key, *(cell(by.get(m), metric, digits) for m in methods), *(shown(f(by), 3) for f in (extra or {}).values())] for key, by in pairs]
    means = [mean_text([value(by.get(m), metric) for _, by in pairs], digits) for m in methods]
    means += [mean_of_extra(name, [f(by) for _, by in pairs]) for name, f in (extra or {}).items()]
    return markdown([head, *lines, ["**mean**", "", *means]])


def pairs_of(rows: Sequence[Row]) -> list[tuple[tuple[str, str], dict[str, Row]]]:
    grouped: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        grouped.setdefault((row["case"], row["protocol"]), {})[row["method"]] = row
    return list(grouped.items())


def value(row: Row | None, metric: str) -> float | None:
    if row is None or row["status"] != "ok":
        return None
    found = row.get(metric)
    return found.get("mean") if isinstance(found, dict) else found


def cell(row: Row | None, metric: str, digits: int) -> str:
    if row is None:
        return ""
    return shown(value(row, metric), digits) if row["status"] == "ok" else SHORT[row["status"]]


def difference(by: dict[str, Row]) -> float | None:
    ours, grow = value(by.get(OURS), "dice"), value(by.get(REFERENCE), "dice")
    return None if ours is None or grow is None else ours - grow


def flag(by: dict[str, Row]) -> str:
    gap = difference(by)
    return "" if gap is None or gap >= -MARGIN - 1e-9 else "**below**"


def estimate(by: dict[str, Row]) -> float | None:
    return value(by.get(OURS), "estimate")


def estimate_error(by: dict[str, Row]) -> float | None:
    return value(by.get(OURS), "estimate_error")


def mean_text(values: Sequence[float | None], digits: int) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return ""
    text = f"{sum(known) / len(known):.{digits}f}"
    return text if len(known) == len(values) else f"{text} (of {len(known)})"


def mean_of_extra(name: str, values: Sequence[Any]) -> str:
    if name == "flag":
        return f"{sum(bool(v) for v in values)} below"
    return mean_text(values, 3)


def shown(what: Any, digits: int) -> str:
    if what is None:
        return ""
    return what if isinstance(what, str) else f"{what:.{digits}f}"


def plain_table(rows: Sequence[Row], digits: int = 3) -> str:
    """Floats with `digits` digits; what only some rows have is empty in the others."""
    head = list(max(rows, key=len))

    def cell(value: Any) -> str:
        return shown(value, digits) if isinstance(value, float) or value is None else str(value)

    return markdown([head, *([cell(row.get(name)) for name in head] for row in rows)])


def markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def reasons(rows: Sequence[Row]) -> str:
    """Why methods are not there, each reason once."""
    found = dict.fromkeys(f"- {r['method']}: {r['status']}, {r.get('reason', '')}" for r in rows if r["status"] != "ok")
    return "\n".join(found)
