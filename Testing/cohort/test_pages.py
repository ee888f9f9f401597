"""The pages to look through: failures first, then from the lowest estimate up; a few hundred a page; nothing of a name is obeyed."""

import re

import pytest

from sparseseg.cohort import page
from sparseseg.cohort.manifest import Manifest
from sparseseg.cohort.page import write_pages

RESULT = {
    "voxels": {},
    "remarks": [],
    "seconds": {"read": 1.0, "network": 2.0, "write": 0.5},
    "bytes_read": 100,
    "bytes_written": 10,
    "sha256": "12ab",
}


@pytest.fixture
def manifest(tmp_path):
    opened = Manifest(tmp_path)
    yield opened
    opened.close()


def done(manifest, name, dice):
    manifest.begin({name: ["a.nrrd"]})
    manifest.started(name, "node", 1)
    manifest.done(name, "model", "1.0", {**RESULT, "estimate": {"liver": dice, "spleen": 0.99}, "output": f"{name}.seg.nrrd"})


def test_failures_stand_on_top_and_the_least_sure_come_first(manifest, tmp_path):
    for name, dice in (("fair", 0.8), ("bad", 0.3), ("good", 0.95)):
        done(manifest, name, dice)
    manifest.begin({"broken": ["a.nrrd"], "dead": ["a.nrrd"], "new": ["a.nrrd"]})
    manifest.quarantined("broken", "a<b>.nrrd cannot be read\x1b[31m.")
    manifest.died("dead", "It was killed.", attempts=0)
    write_pages(tmp_path, manifest, "f00d")
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "3 done, 1 waiting, 1 quarantined, 1 failed." in text and "SHA-256 f00d" in text
    places = [text.index(said) for said in ("a&lt;b&gt;.nrrd cannot be read\\x1b[31m.", "It was killed.", "bad</a>", "fair</a>", "good</a>")]
    assert places == sorted(places)
    assert "liver 0.30, spleen 0.99" in text and text.count('<img loading="lazy"') == 3
    assert "<script" not in text and "default-src 'none'" in text
    assert not (tmp_path / "pages").exists()


def test_thousands_are_split_into_pages_that_know_each_other(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_ROWS", 3)
    for n in range(7):
        done(manifest, f"p{n}", n / 10)
    write_pages(tmp_path, manifest, "f00d")
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("index.html", "pages/2.html", "pages/3.html")]
    assert [len(re.findall("<figure>", text)) for text in texts] == [3, 3, 1]
    files = [tmp_path / "index.html", tmp_path / "pages" / "2.html", tmp_path / "pages" / "3.html"]
    for own, text in zip(files, texts, strict=True):
        links = re.findall(r"<nav>.*?</nav>", text)[0]
        linked = {(own.parent / href).resolve() for href in re.findall(r'href="([^"]+)"', links)}
        assert linked == {other.resolve() for other in files if other != own}
    assert 'src="../pictures/p3.svg"' in texts[1] and 'href="../segmentations/p3.seg.nrrd"' in texts[1]
    (tmp_path / "pages" / "2.html").unlink()
    write_pages(tmp_path, manifest, "f00d")
    assert (tmp_path / "pages" / "2.html").exists()


def test_an_empty_cohort_has_a_page(manifest, tmp_path):
    write_pages(tmp_path, manifest, "f00d")
    assert "No series." in (tmp_path / "index.html").read_text(encoding="utf-8")
