"""report.html: the numbers by hand, the pictures the right way round, and a page that is whole, escaped and needs nothing from outside."""

import base64
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk

from sparseseg.cli import report_input
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.errors import OutputError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.settings import Settings
from sparseseg.report import ReportInput, write_report
from sparseseg.report.curves import nice_ticks
from sparseseg.report.drawing import encode_png, outline
from sparseseg.report.numbers import DiceRow, dice_table
from sparseseg.report.slices import choose_slices, display_slice, pixel_mm
from sparseseg.report.voices import farthest

VOID = {"meta", "image", "path", "use", "circle", "rect"}  # closed by themselves on this page
IDENTITY = np.eye(3)
RUN = {
    "reason": "budget",
    "seconds": 12.5,
    "steps": 300,
    "device": "CPU",
    "why": "no graphics card",
    "precision": "float32",
    "network": {"width": 16, "kernels": [[3, 3, 3]] * 3, "parameters": 1234567},
    "grid_kji": [10, 8, 9],
    "slices": 1,
    "batch": 2,
    "orientations": [0, 2],
    "supervised": 0.256,
    "settings": {"seed": 0, "learning_rate": 0.004},
    "annotation": "36 of 600 voxels labelled.\nliver: 4 voxels",
    "annotation_precision": 0.684,
    "estimate": {"Segment_1": 0.8, "Segment_2": 0.6},
    "share": 0.3456,
    "timings": {"prior": 0.4},
    "history": [
        {"seconds": 1.0, "step": 10, "loss": {"cross_entropy": 1.5, "dice": 0.9}},
        {"seconds": 2.0, "step": 20, "loss": {"cross_entropy": 0.05, "dice": 0.2}},
        {"seconds": 2.0, "step": 20, "estimate": None},
        {"seconds": 2.0, "step": 20, "estimate": 0.6},
        {"seconds": 1.0, "step": 30, "loss": {"cross_entropy": 0.04, "dice": 0.2}},
        {"seconds": 2.0, "step": 40, "estimate": 0.7},
    ],
}


class Page(HTMLParser):
    """Collects text, and fails where a tag is not closed by its own end."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def phantom(**changes):
    """10 x 8 x 9 voxels of 5 x 1 x 2 mm: two segments through all slices, axial slices 1 and 2 annotated wholly."""
    shape = (10, 8, 9)
    truth = np.zeros(shape, np.uint8)
    truth[:, 1:4, 1:4], truth[:, 5:7, 2:8] = 1, 2
    annotation = np.zeros(shape, np.uint8)
    annotation[1:3] = truth[1:3] + 1
    image = (truth * 100).astype(np.int16)
    geometry, classes = Geometry.from_axes(shape, (2, 1, 5)), ClassTable.numbered(2, ["liver", "spleen"])
    data = ReportInput("A run", image, annotation, truth.copy(), geometry, classes, RUN)
    return replace(data, **changes)


def spoken():
    """What three voices say: growing sees a voxel of the first segment too much on each slice, the network has none of the second."""
    truth = phantom().dense
    growing, network = truth.copy(), np.where(truth == 2, 0, truth)
    growing[:, 0, 0] = 1
    return {"growing": growing, "prior": truth, "network": network}


def page_of(tmp_path, data):
    path = tmp_path / "report.html"
    write_report(path, data)
    return path.read_text(encoding="utf-8")


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_dice_counts_unlabelled_voxels_only_and_volumes_count_all():
    flat = {
        "truth": [1, 1, 1, 1, 2, 2, 0, 0],
        "dense": [1, 1, 2, 0, 2, 2, 1, 0],
        "prior": [1, 0, 0, 0, 0, 2, 0, 0],
        "network": [1, 1, 1, 1, 0, 0, 0, 0],
        "annotation": [2, 0, 0, 0, 3, 0, 0, 1],  # the first, fifth and last do not count
    }
    arrays = {name: np.array(values, np.uint8).reshape(2, 2, 2) for name, values in flat.items()}
    geometry = Geometry.from_axes((2, 2, 2), (10, 10, 10))  # a voxel is 1 ml
    said = {name: arrays.pop(name) for name in ("prior", "network")}
    data = ReportInput("t", np.zeros((2, 2, 2)), geometry=geometry, classes=ClassTable.numbered(2), run=RUN, voices=said, **arrays)
    assert dice_table(data) == [
        DiceRow("segment 1", 3, pytest.approx(3), 0.8, pytest.approx(2 / 5), {"prior": 0, "network": 1}),  # left: truth 3, result 2, both 1; prior 0
        DiceRow("segment 2", 3, pytest.approx(3), 0.6, pytest.approx(2 / 3), {"prior": 1, "network": 0}),  # left: truth 1, result 2, both 1; prior 1
        DiceRow("Mean", None, None, pytest.approx(0.7), pytest.approx(8 / 15), {"prior": 1 / 2, "network": 1 / 2}),
    ]


def test_what_is_unknown_is_none_and_not_zero():
    rows = dice_table(phantom(run={"estimate": {"Segment_1": float("nan")}}))
    assert [(r.estimate, r.result, r.prior) for r in rows] == [(None, None, None)] * 3
    absent = np.zeros((10, 8, 9), np.uint8)
    rows = dice_table(phantom(dense=absent, truth=absent, run={}))
    assert [r.result for r in rows] == [None] * 3


def heads_and_rows(page):
    table = re.search(r'<table class="numbers">.*?</table>', page, re.DOTALL)[0]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)[1:]]
    return re.findall(r'<th scope="col">(.*?)</th>', table), rows


def test_every_voice_has_a_column_beside_the_result(tmp_path):
    """Unlabelled: 8 slices. Segment 1 has 9 voxels a slice (growing 10), segment 2 has 12."""
    data = phantom(voices=spoken(), truth=phantom().dense)
    heads, rows = heads_and_rows(page_of(tmp_path, data))
    assert heads == ["Segment", "Dice, growing", "Dice, prior", "Dice, network", "Dice, result", "Difference to the prior", "Estimate", "Volume, ml"]
    assert rows[0][:5] == ["0.947", "1.000", "1.000", "1.000", "+0.000"]  # 2 * 9 / (9 + 10)
    assert rows[1][:5] == ["1.000", "1.000", "0.000", "1.000", "+0.000"]
    assert rows[2][:5] == ["0.974", "1.000", "0.500", "1.000", "+0.000"]
    del data.voices["prior"]
    assert heads_and_rows(page_of(tmp_path, data))[0] == ["Segment", "Dice, growing", "Dice, network", "Dice, result", "Estimate", "Volume, ml"]
    assert heads_and_rows(page_of(tmp_path, phantom(voices=spoken())))[0] == ["Segment", "Estimate", "Volume, ml"]


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_png_holds_the_pixels(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (7, 13), dtype=np.uint8)
    for name, picture in (("noise", pixels), ("ramp", np.tile(np.arange(13, dtype=np.uint8) * 19, (5, 1))), ("one", pixels[:1, :1])):
        (tmp_path / f"{name}.png").write_bytes(encode_png(picture))
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{name}.png"))), picture)


def filled(path, shape):
    """The mask that a path encloses by the even-odd rule, read back by counting vertical sides to the left of each pixel."""
    sides = np.zeros((shape[0], shape[1] + 1), int)
    for loop in re.findall(r"M[^M]+z", path):
        x, y = x0, y0 = tuple(map(int, re.match(r"M(\d+) (\d+)", loop).groups()))
        for kind, text in re.findall(r"([hv])(-?\d+)", loop):
            if kind == "h":
                x += int(text)
            else:
                low, high = sorted((y, y + int(text)))
                sides[low:high, x] += 1
                y += int(text)
        assert (x, y) == (x0, y0)
    return np.cumsum(sides, axis=1)[:, :-1] % 2 == 1


def test_outline_encloses_exactly_the_mask():
    assert outline(np.ones((2, 3), bool)) == "M0 0h3v2h-3v-2z"
    assert outline(np.zeros((3, 3), bool)) == ""
    ring = np.ones((5, 6), bool)
    ring[2:3, 2:4] = False
    for mask in (ring, np.eye(4, dtype=bool), np.random.default_rng(2).random((12, 9)) < 0.5):
        assert np.array_equal(filled(outline(mask), mask.shape), mask)


FLIPS = [np.diag([a, b, c]) for a in (1, -1) for b in (1, -1) for c in (1, -1)]
TURNS = [IDENTITY[:, list(order)] for order in ((0, 1, 2), (1, 2, 0), (2, 1, 0), (0, 2, 1))]
TILTED = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])


@pytest.mark.parametrize("direction", [turn @ flip for turn in TURNS for flip in FLIPS] + [TILTED, TILTED @ np.diag([-1, 1, -1])])
def test_patient_right_anterior_and_superior_are_where_the_letters_say(direction):
    """One bright voxel at the patient's left, anterior, superior end of the grid, whatever way the grid is stored."""
    shape = (6, 7, 8)
    geometry = Geometry.from_axes(shape, (1, 1, 1), direction=direction.ravel())
    corners = [(k, j, i) for k in (0, 5) for j in (0, 6) for i in (0, 7)]
    corner = max(corners, key=lambda c: float(np.array([1, -1, 1]) @ direction @ c[::-1]))  # + left, - posterior, + superior
    image = np.zeros(shape, np.uint8)
    image[corner] = 255
    expected = {"axial": (0, -1), "coronal": (0, -1), "sagittal": (0, 0)}  # (row, column): top right, top right, top left
    for plane, place in expected.items():
        picture = display_slice(image, geometry, plane, corner[geometry.plane_axis(plane)])
        assert picture[place] == 255 and picture.sum() == 255


def test_pixels_have_their_size_in_the_patient():
    geometry = Geometry.from_axes((4, 5, 6), (0.5, 0.75, 3))
    assert [pixel_mm(geometry, plane) for plane in ("axial", "coronal", "sagittal")] == [(0.75, 0.5), (3, 0.5), (3, 0.75)]
    turned = Geometry.from_axes((4, 5, 6), (0.5, 0.75, 3), direction=IDENTITY[:, [2, 0, 1]].ravel())  # i runs along S, j along L, k along P
    assert [pixel_mm(turned, plane) for plane in ("axial", "coronal", "sagittal")] == [(3, 0.75), (0.5, 0.75), (0.5, 3)]


def test_pictures_have_the_patients_proportions(tmp_path):
    boxes = [[float(v) for v in a["viewbox"].split()] for _, a in Page(page_of(tmp_path, phantom())).tags if a.get("class") == "view"]
    seen = {round(b[2] / b[3], 2) for b in boxes}
    assert seen == {round(18 / 8, 2), round(18 / 50, 2), round(8 / 50, 2)}  # mm: 9 x 2 by 8 x 1, 9 x 2 by 10 x 5, 8 x 1 by 10 x 5


def test_how_precise_the_annotation_is_is_told(tmp_path):
    assert "0.68: how far the image and all other labels agree with those at contours and rims, 0.2 not at all, 0.8 fully" in page_of(
        tmp_path, phantom()
    )
    assert "Precision of the annotation" not in page_of(tmp_path, phantom(run={}))


def test_the_grid_what_was_learned_from_and_the_networks_share_are_told(tmp_path):
    text = Page(page_of(tmp_path, phantom())).text
    assert "10 \u00d7 8 \u00d7 9 voxels (k \u00d7 j \u00d7 i)" in text
    assert "2 slabs of 1 a step, across k, i; 26 % of the voxels that it computed had a label" in text
    assert "0.35; the prior has the rest" in text
    without = Page(page_of(tmp_path, phantom(run={}))).text
    assert not any(row in without for row in ("Working grid", "Learned from", "share of the result"))


def test_slices_are_one_annotated_and_those_farthest_from_annotation():
    data = phantom()
    axial = [s for s in choose_slices(data) if s.plane == "axial"]
    assert axial[0].index in (1, 2) and axial[0].far_mm == 0 and axial[0].labelled == 1
    assert (axial[1].index, axial[1].far_mm, axial[1].labelled) == (9, 35, 0)
    assert axial[2].index in (5, 6) and axial[2].labelled == 0  # half way between the annotated ones and the first unseen one
    others = [s for s in choose_slices(data) if s.plane != "axial"]
    assert len(others) == 4 and all(s.far_mm is None and s.labelled == 0.2 for s in others)


def test_slices_where_the_result_is_least_sure_and_through_its_middle_are_shown(tmp_path):
    uncertainty = np.zeros(phantom().dense.shape, np.uint8)
    uncertainty[3, 2:6, 2:6] = 200
    data = phantom(uncertainty=uncertainty)
    chosen = choose_slices(data)
    assert [s.index for s in chosen if s.plane == "axial" and s.why.startswith("where")] == [3]
    assert {s.plane for s in chosen if s.why.startswith("through")} <= {"axial", "coronal", "sagittal"}
    content = (data.dense > 0).sum(axis=(1, 2)).cumsum()
    assert int(np.searchsorted(content, content[-1] / 2)) in [s.index for s in chosen if s.plane == "axial"]
    assert page_of(tmp_path, data).count("<p>Uncertainty: white") == sum(s.why.startswith("where") for s in chosen)


def test_what_somebody_annotated_is_not_unsure():
    data = phantom()
    uncertainty = np.where(np.asarray(data.annotation) > 0, 255, 0).astype(np.uint8)
    assert not any(s.why.startswith("where") for s in choose_slices(replace(data, uncertainty=uncertainty)))


def test_lines_left_by_crossing_slices_do_not_make_a_slice_annotated():
    annotation = np.zeros((10, 8, 9), np.uint8)
    annotation[4], annotation[:, 2] = 2, 2
    chosen = choose_slices(phantom(annotation=annotation))
    assert [(s.index, s.far_mm) for s in chosen if s.plane == "axial"][:2] == [(4, 0), (9, 25)]
    assert [(s.index, s.far_mm) for s in chosen if s.plane == "coronal"][:2] == [(2, 0), (6, 4)]
    assert {s.far_mm for s in chosen if s.plane == "sagittal"} == {None}


def test_unseen_slices_show_a_segment_even_where_empty_ones_are_farther():
    dense = phantom().dense.copy()
    dense[6:] = 0
    assert [s.index for s in choose_slices(phantom(dense=dense)) if s.plane == "axial"][1] == 5


def test_thin_strokes_count_as_annotation():
    annotation = np.zeros((10, 8, 9), np.uint8)
    annotation[3, 2, 1:4] = 2
    chosen = choose_slices(phantom(annotation=annotation))
    assert [(s.index, s.far_mm) for s in chosen if s.plane == "axial"][:2] == [(3, 0), (9, 30)]


# -- the voices --------------------------------------------------------------------------------------------------------


def voices_of(page):
    """The section, and (label, content) of each of its views."""
    section = re.search(r"<section><h2>The voices</h2>.*?</section>", page, re.DOTALL)[0]
    return section, re.findall(r"<div><svg.*?<g [^>]*>(.*?)</g><text.*?<p>(\w+)</p></div>", section, re.DOTALL)


def test_the_voices_are_shown_on_the_unseen_slice_farthest_from_the_annotation(tmp_path):
    """Axial slice 9, the second picture of the page: 35 mm from slice 2. The picture, the result and the truth are used again."""
    section, views = voices_of(page_of(tmp_path, phantom(voices=spoken(), truth=phantom().dense)))
    assert "Axial, slice 9 of 0 to 9" in section and "<b>unseen</b>, 35 mm" in section and "base64" not in section
    assert [label for _, label in views] == ["Growing", "Prior", "Network", "Together"]
    truth = '<g class="halo"><use href="#p1t"/></g><g class="truth"><use href="#p1t"/></g>'
    assert all(content.startswith('<use href="#p1"/>') and content.endswith(truth) for content, _ in views)
    masks = [[filled(d, (8, 9)) for d in re.findall(r' d="(.*?)"', content)] for content, _ in views]
    says = spoken()
    for found, name in zip(masks, says, strict=False):
        there = [c for c in (1, 2) if (says[name][9] == c).any()]
        assert len(found) == len(there)
        for mask, c in zip(found, there, strict=True):
            assert np.array_equal(mask, says[name][9] == c)
    assert views[3][0] == f'<use href="#p1"/><use href="#p1r"/>{truth}'
    untold = voices_of(page_of(tmp_path, phantom(voices=spoken())))[1]
    assert untold[3][0] == '<use href="#p1"/><use href="#p1r"/>' and "p1t" not in str(untold)


def test_a_slice_that_shows_segments_comes_before_a_farther_empty_one():
    data = phantom()
    data.dense[9] = 0
    slices = choose_slices(phantom())
    assert (slices[1].index, slices[1].far_mm) == (9, 35)
    assert slices[farthest(data, slices)].index in (5, 6)


def test_the_networks_say_is_told_with_its_reason_where_that_is_known(tmp_path):
    def told(**run):
        return re.search(r"</h2>\n(?:<p>(.*?)</p>)?", voices_of(page_of(tmp_path, phantom(voices=spoken(), run=run)))[0])[1]

    said = "The network had 0.47 of the say. It agreed with the prior on 0.86 of the voxels, was 0.92 sure on average"
    said += ", and was taken to be as sure as it agreed."
    assert told(share=0.474, agreement=0.861, confidence=0.92) == f"{said} Both are counted where nobody painted and either of them sees a segment."
    assert told(share=0.474, agreement=0.861) == told(share=0.474, confidence=None) == "The network had 0.47 of the say."
    assert told(share=0.0, agreement=0.5, confidence=0.5) == "The network had no say in the result."
    assert told() is None


def test_each_voice_that_is_there_is_explained_and_one_alone_is_not(tmp_path):
    says = spoken()
    section, _ = voices_of(page_of(tmp_path, phantom(voices=says)))
    assert all(f"<b>{name}</b>" in section for name in ("Growing", "prior", "network", "Together"))
    del says["network"]
    section, views = voices_of(page_of(tmp_path, phantom(voices=says)))
    assert [label for _, label in views] == ["Growing", "Prior", "Together"] and "<b>network</b>" not in section
    for few in ({}, {"prior": says["prior"]}):
        assert "The voices" not in page_of(tmp_path, phantom(voices=few))


def test_the_voices_do_not_embed_pictures_again(tmp_path):
    pages = [page_of(tmp_path, phantom(voices=said)) for said in ({}, spoken())]
    assert pages[0].count("base64,") == pages[1].count("base64,") == 7


def finished_job(folder):
    """A job of the phantom with slice 4 complete and empty, and three voices."""
    data = phantom()
    Job.create(folder, data.image, data.annotation, JobRecord(data.geometry, data.classes, Settings(), complete_slices=((0, 4),))).close()
    (folder / "report.json").write_text(json.dumps({"share": 0.5}), encoding="ascii")
    np.save(folder / "dense.npy", data.dense)
    for file, labels in zip(("network.npy", "prior.npy", "grown.npy"), reversed(spoken().values()), strict=True):
        np.save(folder / file, labels)
    return folder


def test_a_finished_jobs_voices_are_found_in_order_and_those_that_are_not_there_left_out(tmp_path):
    data, folder = phantom(), finished_job(tmp_path / "job")
    found = report_input(folder, "A job", data.dense)
    assert list(found.voices) == ["growing", "prior", "network"] and found.run == {"share": 0.5}
    assert all(np.array_equal(found.voices[name], labels) for name, labels in spoken().items())
    assert np.array_equal(found.dense, data.dense) and found.truth is data.dense
    assert (found.annotation[4] == 1).all() and not found.annotation[5].any()
    del found  # its arrays are memory-mapped files of the job
    (folder / "network.npy").unlink()
    assert list(report_input(folder, "A job").voices) == ["growing", "prior"]


def test_the_figure_of_the_voices_has_a_panel_for_each_and_marks_the_network_where_it_has_no_segment(tmp_path):
    """The lower rectangle, the second segment: of its outline everybody shows the truth's white, only the network lacks the filling."""
    pytest.importorskip("matplotlib")
    from make_voices_figure import draw

    flat = np.zeros_like(phantom().image)  # a black image: what is bright was drawn
    draw(replace(report_input(finished_job(tmp_path / "job"), "A job", phantom().dense), image=flat), tmp_path / "voices.png")
    rgb = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "voices.png")))[..., :3].astype(int)
    black = (rgb.max(axis=2) == 0).any(axis=0)
    first, last = (np.flatnonzero(np.diff(black.astype(int)) == step) + 1 for step in (1, -1))
    panels = [rgb[:, a:b] for a, b in zip(first, last, strict=True)]
    assert len(panels) == 4
    middles = []
    for panel in panels:
        rows = np.flatnonzero((panel.max(axis=2) == 0).any(axis=1))
        height, width = rows[-1] - rows[0] + 1, panel.shape[1]
        middles.append(panel[rows[0] + round(6 / 8 * height), round(5 / 9 * width)].max() > 0)  # rows 5 and 6, columns 2 to 7
    assert middles == [True, True, False, True]


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_needs_nothing_from_outside(tmp_path):
    html = page_of(tmp_path, phantom(voices=spoken(), truth=phantom().dense))
    page = Page(html)
    assert not re.search(r"https?:|<script|javascript:|@import|url\(", html, re.IGNORECASE)
    assert all(value.startswith(("data:image/png;base64,", "#")) for _, a in page.tags for key, value in a.items() if key in ("href", "src"))
    names = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["href"][1:] for tag, a in page.tags if tag == "use"} <= names
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2")] == ["h1"] + ["h2"] * 5
    for text in ("Mean Dice 1.000", "about the same as the prior alone", "1,234,567 parameters", "time budget spent", "no graphics card"):
        assert text in page.text
    for uri in re.findall(r"base64,([^\"]+)", html):
        assert base64.b64decode(uri, validate=True).startswith(b"\x89PNG")


def test_names_are_shown_and_never_run(tmp_path):
    evil = '<script>alert("1")</script> & Größe é 肝臓'
    classes = ClassTable((Segment("Segment_1", evil, (1, 0, 0)), Segment("Segment_2", "' onload='x", (0, 1, 2))))
    run = {**RUN, "annotation": evil, "why": evil, "device": evil, "settings": {evil: evil}, "timings": {evil: 1.0}, "reason": evil}
    html = page_of(tmp_path, phantom(title=evil, classes=classes, run=run, truth=phantom().dense))
    page = Page(html)
    assert "<script" not in html and page.text.count(evil) >= 8
    assert not any(tag == "script" or any(key.startswith("on") for key in a) for tag, a in page.tags)


ONLY_ESTIMATED = {"history": [{"seconds": 1.0, "step": 1, "estimate": 0.5}]}


@pytest.mark.parametrize("run", [{}, {"history": []}, ONLY_ESTIMATED, RUN])
def test_without_truth_prior_or_history(tmp_path, run):
    page = Page(page_of(tmp_path, phantom(run=run)))
    quality = page.text.split("Slices")[0]
    assert "prior alone" not in quality and "truth" not in page.text.split("Slices")[1]
    assert ("Estimated mean Dice 0.700 (2 of 2 segments)" if run is RUN else "is unknown") in quality
    assert ("of training" in page.text) == bool(run.get("history"))


def test_a_segment_without_an_estimate_cannot_be_told(tmp_path):
    page = page_of(tmp_path, phantom(run=RUN | {"estimate": {"Segment_2": 0.6}}))
    rows = re.findall(r'<tr><th scope="row"><svg.*?</svg>(\w+)</th><td>(.*?)</td>', page)
    assert rows == [("liver", "cannot tell"), ("spleen", "0.600")]
    assert "Estimated mean Dice 0.600 (1 of 2 segments), by how well slices of the result bring back the annotation." in Page(page).text
    assert re.findall(r">(cannot tell|0\.\d{3})</td>", page_of(tmp_path, phantom(run={}))) == ["cannot tell"] * 3  # nor the mean


def chart_of(page, title):
    """The legend's names, and the (x, y) of the marks, of a chart."""
    figure = re.search(rf'<figure class="chart"><figcaption><b>{title}</b>.*?</figure>', page, re.DOTALL)[0]
    names = re.findall(r"</svg>([^<]+)</span>", figure)
    return names, [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', figure)], figure


def test_the_estimate_is_drawn_over_time_where_there_is_one(tmp_path):
    """At 2 s 0.6, at 3 s 0.7 (the clock went back by one second in between); and at 2 s none, too."""
    names, marks, figure = chart_of(page_of(tmp_path, phantom()), "Estimated mean Dice")
    assert names == ["estimated Dice"]
    grid = {float(tick): float(y) for y, tick in re.findall(r'<text class="y" x="[\d.]+" y="([\d.]+)">([\d.]+)</text>', figure)}
    times = {float(tick): float(x) for x, tick in re.findall(r'<text class="x" x="([\d.]+)" y="[\d.]+">([\d.]+)</text>', figure)}
    assert marks == [(pytest.approx(times[2], abs=0.1), pytest.approx(grid[0.6], abs=0.1)), (times[3], pytest.approx(grid[0.7], abs=0.1))]
    assert chart_of(page_of(tmp_path, phantom()), "Loss while training")[0] == ["cross-entropy", "Dice loss"]
    nothing = RUN | {"history": [entry for entry in RUN["history"] if not entry.get("estimate")]}
    assert "Estimated mean Dice</b>" not in page_of(tmp_path, phantom(run=nothing))


def test_what_the_network_learned_from_and_its_share_are_told(tmp_path):
    text = Page(page_of(tmp_path, phantom())).text
    assert "2 slabs of 1 a step, across k, i; 26 % of the voxels that it computed had a label" in text
    assert "0.35; the prior has the rest" in text
    nothing = Page(page_of(tmp_path, phantom(run={}))).text
    assert "slabs" not in nothing and "share" not in nothing


def test_probable_mistakes_are_listed_the_surest_first_and_silence_means_none(tmp_path):
    told = [{"sentence": f"Slice {n} & <b>others</b>."} for n in range(12)]
    page = page_of(tmp_path, phantom(run=RUN | {"check": told}))
    text = Page(page).text
    assert "Check the annotation" in text
    assert [n for n in range(12) if f"Slice {n} & <b>others</b>." in text] == list(range(10))
    for none in (RUN, RUN | {"check": []}):
        assert "Check the annotation" not in page_of(tmp_path, phantom(run=none))


def test_a_result_worse_than_the_prior_is_called_so(tmp_path):
    data = phantom()
    worse = data.dense.copy()
    worse[5:] = 0
    assert (
        "worse than the prior alone, 1.000"
        in Page(page_of(tmp_path, replace(data, dense=worse, voices={"prior": data.dense}, truth=data.dense))).text
    )


def test_time_never_runs_backwards_in_the_curves(tmp_path):
    paths = [a["d"] for tag, a in Page(page_of(tmp_path, phantom())).tags if tag == "path" and a.get("class") == "line" and "L" in a["d"]]
    assert paths
    for path in paths:
        xs = [float(point.split()[0]) for point in path[1:].split("L")]
        assert all(a <= b for a, b in pairwise(xs))


def test_ticks_are_round_numbers():
    assert nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert nice_ticks(0.83, 0.93) == [0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.94]
    assert nice_ticks(0, 61.3, 6) == [0, 20, 40, 60, 80]
    assert nice_ticks(3, 3) == [3, 3.2, 3.4, 3.6, 3.8, 4]


def test_odd_images_are_shown(tmp_path):
    shape = (10, 8, 9)
    nothing = np.zeros(shape, np.uint8)
    for image in (np.zeros(shape, np.float32), np.full(shape, np.nan), np.random.default_rng(0).random(shape).astype(np.float16)):
        Page(page_of(tmp_path, phantom(image=image, annotation=nothing, dense=nothing)))


def test_large_noisy_volumes_stay_small(tmp_path):
    shape = (4, 700, 600)
    image = np.random.default_rng(0).normal(0, 30, shape).astype(np.int16)
    dense = np.zeros(shape, np.uint8)
    dense[:, 200:400, 100:300] = 1
    annotation = np.zeros(shape, np.uint8)
    annotation[1] = dense[1] + 1
    data = ReportInput("n", image, annotation, dense, Geometry.from_axes(shape, (1, 1, 3)), ClassTable.numbered(1), {})
    assert len(page_of(tmp_path, data)) < 2_000_000


def test_memory_mapped_arrays_are_read(tmp_path):
    data = phantom()
    np.save(tmp_path / "image.npy", data.image)
    np.save(tmp_path / "dense.npy", data.dense)
    mapped = replace(data, image=np.load(tmp_path / "image.npy", mmap_mode="r"), dense=np.load(tmp_path / "dense.npy", mmap_mode="r"))
    assert page_of(tmp_path, mapped) == page_of(tmp_path, data)


def test_a_report_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(OutputError, match=r"Could not write .*report\.html"):
        write_report(tmp_path / "missing" / "report.html", phantom())


def test_the_module_needs_neither_torch_nor_matplotlib():
    code = "import sys, sparseseg.report; sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib', 'SimpleITK')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
