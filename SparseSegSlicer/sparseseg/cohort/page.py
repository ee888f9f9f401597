"""The pages on which a person looks through a cohort's results: what cannot be used on top, then the results from the lowest estimate up.

Plain pages of a few hundred rows, whose pictures are loaded when they are scrolled to; no scripts, as in report.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import islice
from pathlib import Path

from ..contract.folders import write_whole, writing
from ..contract.text import visible
from ..report.style import CSS
from .manifest import DONE, FAILED, QUARANTINED, RUNNING, WAITING, Manifest, Row

_ROWS = 200  # of a page
_FAILURES = 500  # on the first page
_MORE = """
.cohort{display:grid;gap:.2rem 1.2rem;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr))}
.cohort figure{border-top:1px solid var(--line);padding-top:.5rem}
.cohort img{width:100%;aspect-ratio:2/1;object-fit:contain;object-position:left top;background:var(--band)}
.cohort b{overflow-wrap:anywhere}.failed td:first-child{overflow-wrap:anywhere;min-width:9rem}
nav{margin:1rem 0;display:flex;flex-wrap:wrap;gap:.2rem .7rem}nav a,figcaption a{color:inherit}
"""
_POLICY = "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'"


def write_pages(folder: Path, manifest: Manifest, model: str) -> None:
    """index.html, and pages/2.html and so on in the folder of a manifest. model: SHA-256 of its file. Raises OutputError."""
    counts = manifest.counts()
    pages = max(1, -(-counts.get(DONE, 0) // _ROWS))
    done = manifest.rows(DONE)
    with writing(folder):
        if pages > 1:
            (folder / "pages").mkdir(mode=0o700, exist_ok=True)
        for number in range(1, pages + 1):
            top = _head(counts, model) + _failures(manifest) if number == 1 else "<h1>Results of a cohort</h1>\n"
            text = _whole(top + _results(list(islice(done, _ROWS)), number, pages))
            _write(folder / (_address(number, 1)), text)


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode("utf-8")), lasting=False)


def _address(number: int, seen_from: int) -> str:
    """Of a page, as a link on another."""
    if number == 1:
        return "index.html" if seen_from == 1 else "../index.html"
    return f"pages/{number}.html" if seen_from == 1 else f"{number}.html"


def _whole(content: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>Results of a cohort</title>\n'
        f"<style>{CSS}{_MORE}</style></head>\n<body><main>\n{content}</main></body></html>\n"
    )


def _head(counts: dict[str, int], model: str) -> str:
    said = [f"{counts[state]} {state}" for state in (DONE, RUNNING, WAITING, QUARANTINED, FAILED) if counts.get(state)]
    return (
        f'<h1>Results of a cohort</h1>\n<p class="verdict">{", ".join(said) or "No series"}.</p>\n'
        f'<p class="note">Model: SHA-256 {escape(model)}. Quarantined: the volume cannot be used, with the reason. Failed: whoever segmented it died '
        "each time; the next run tries again.</p>\n"
    )


def _failures(manifest: Manifest) -> str:
    counts = manifest.counts()
    total = counts.get(QUARANTINED, 0) + counts.get(FAILED, 0)
    if not total:
        return ""
    shown = list(islice(manifest.rows(FAILED, QUARANTINED), _FAILURES))
    rows = "".join(f"<tr><td>{_shown(row.name)}</td><td>{row.state}</td><td>{_shown(row.error)}</td></tr>\n" for row in shown)
    rest = f'<p class="note">And {total - len(shown)} more: see manifest.sqlite.</p>' if total > len(shown) else ""
    head = "<thead><tr><th>series</th><th>state</th><th>why</th></tr></thead>"
    return f'<section><h2>Without a result</h2>\n<div class="wide"><table class="failed">{head}<tbody>{rows}</tbody></table></div>{rest}</section>\n'


def _results(rows: Sequence[Row], number: int, pages: int) -> str:
    links = _links(number, pages)
    figures = "".join(_figure(row, "" if number == 1 else "../") for row in rows)
    note = (
        '<p class="note">From the lowest estimate up: of the segment that is expected to be worst. Axial slices: through the middle of what was '
        "found, and where the network was least sure.</p>"
    )
    return f'<section><h2>Results</h2>\n{note}{links}<div class="cohort">{figures}</div>{links}</section>\n'


def _figure(row: Row, up: str) -> str:
    estimate = "no estimate" if row.estimate is None else f"estimated Dice {row.estimate:.2f}"
    each = ", ".join(f"{_shown(segment)} {dice:.2f}" for segment, dice in sorted(row.estimates.items(), key=lambda item: item[1]))
    remarks = "".join(f"<br>{_shown(remark)}" for remark in row.remarks)
    link = f'<a href="{up}segmentations/{escape(row.output)}">{_shown(row.name)}</a>'
    return (
        f'<figure><img loading="lazy" src="{up}pictures/{escape(row.name)}.svg" alt="two slices of {_shown(row.name)}">'
        f"<figcaption><b>{link}</b>: {estimate}<br>{each}{remarks}</figcaption></figure>\n"
    )


def _links(number: int, pages: int) -> str:
    if pages == 1:
        return ""
    links = (f"<b>{n}</b>" if n == number else f'<a href="{_address(n, number)}">{n}</a>' for n in range(1, pages + 1))
    return f"<nav>{''.join(links)}</nav>"


def _shown(text: str) -> str:
    return escape(visible(text))
