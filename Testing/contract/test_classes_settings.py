"""The table of segments, and the settings: made valid or refused, and back from JSON as they were."""

import colorsys
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.classes import MAX_SEGMENTS, ClassTable, Segment, distinct_color
from sparseseg.contract.errors import InputError
from sparseseg.contract.settings import Settings

LIVER = Segment(
    "Segment_7", "Leber (größte)", (0.5, 0.25, 1.0), {"Segmentation.Status": "inprogress", "TerminologyEntry": "a~b^c|"}, {"Slicer_Future": "1"}
)
SPLEEN = Segment("Segment_2", "spleen", (0, 1, 0))
NOTHING = Segment("Segment_9", "none of these", (0.5, 0.5, 0.5), {"SparseSegSlicer.Background": "1"})


def through_json(value):
    return type(value).from_json(json.loads(json.dumps(value.to_json())))


def test_a_table_comes_back_from_json_with_everything_in_it():
    assert through_json(ClassTable((LIVER, SPLEEN), NOTHING)) == ClassTable((LIVER, SPLEEN), NOTHING)
    assert through_json(ClassTable(())) == ClassTable(())


@given(st.lists(st.text(max_size=9), unique=True, max_size=4), st.text(max_size=9))
def test_any_text_may_be_an_id_or_a_name(ids, name):
    table = ClassTable(tuple(Segment(i, name, (0, 0.5, 1), {name: i}) for i in ids))
    assert through_json(table) == table


def test_json_states_the_value_of_each_segment_and_its_order_in_the_file_does_not_matter():
    data = ClassTable((LIVER, SPLEEN)).to_json()
    assert [(row["value"], row["id"]) for row in data["segments"]] == [(1, "Segment_7"), (2, "Segment_2")]
    assert ClassTable.from_json({"segments": data["segments"][::-1]}).names == ["Leber (größte)", "spleen"]


def test_names_can_be_replaced_and_nothing_else_is():
    table = ClassTable((LIVER, SPLEEN), NOTHING).with_names(["one", "two"])
    assert table.names == ["one", "two"]
    assert [s.id for s in table.segments] == ["Segment_7", "Segment_2"]
    assert table.segments[0].tags == LIVER.tags
    assert table.background == NOTHING


def test_too_few_names_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        ClassTable((LIVER, SPLEEN)).with_names(["one"])


def test_numbered_tables_start_at_one():
    table = ClassTable.numbered(2)
    assert [(s.id, s.name) for s in table.segments] == [("Segment_1", "segment 1"), ("Segment_2", "segment 2")]
    assert ClassTable.numbered(2, ["a", "b"]).names == ["a", "b"]
    assert len(table) == 2


@pytest.mark.parametrize("table", [((SPLEEN, SPLEEN), None), ((SPLEEN, LIVER), SPLEEN)])
def test_two_segments_with_one_id_are_refused(table):
    with pytest.raises(InputError, match="same ID"):
        ClassTable(*table)


def test_as_many_segments_as_uint8_holds_and_no_more():
    assert len(ClassTable.numbered(MAX_SEGMENTS)) == 254
    with pytest.raises(InputError, match="255 segments are more than the 254"):
        ClassTable.numbered(MAX_SEGMENTS + 1)


@pytest.mark.parametrize("values", [(1, 1), (0, 1), (1, 3), (2, 3)])
def test_label_values_with_gaps_or_doubles_are_refused(values):
    rows = [{**segment.to_json(), "value": value} for segment, value in zip((LIVER, SPLEEN), values, strict=True)]
    with pytest.raises(InputError, match="gaps or doubles"):
        ClassTable.from_json({"segments": rows})


@pytest.mark.parametrize("part", [{"name": 7}, {"id": None}, {"tags": {"a": 1}}, {"extra": {"b": []}}])
def test_parts_of_another_type_are_refused(part):
    with pytest.raises(InputError, match="must be text"):
        ClassTable.from_json({"segments": [{**LIVER.to_json(), "value": 1, **part}]})
    with pytest.raises(InputError, match="is no table"):
        ClassTable.from_json([])


def test_neighbouring_colours_are_far_apart_in_hue():
    hues = [colorsys.rgb_to_hsv(*distinct_color(n))[0] for n in range(30)]
    apart = [abs(a - b) for a, b in itertools.pairwise(hues)]
    assert min(min(d, 1 - d) for d in apart) > 0.35
    assert len({distinct_color(n) for n in range(MAX_SEGMENTS)}) == MAX_SEGMENTS


# ---------------------------------------------------------------- settings

LOWEST = {
    "time_budget_s": 1, "steps": 0, "seed": 0, "learning_rate": 1e-6, "pseudo_label_weight": 0, "correction_weight": 1, "class_balance": 0,
    "border_weight": 0, "border_width_mm": 0.1, "width": 0, "depth": 0, "slices": 0, "patch_voxels": 0, "batch": 0, "ema_decay": 0, "dice_weight": 0,
}  # fmt: skip
HIGHEST = {
    "time_budget_s": 86_400, "steps": 1_000_000, "seed": 2**31 - 1, "learning_rate": 1, "pseudo_label_weight": 1, "correction_weight": 100,
    "class_balance": 1, "border_weight": 100, "border_width_mm": 100, "width": 256, "depth": 6, "slices": 32, "patch_voxels": 2**27, "batch": 64,
    "ema_decay": 0.99999, "dice_weight": 10,
}  # fmt: skip


def test_the_ends_of_every_range_are_allowed_and_come_back_from_json():
    for values in (LOWEST, HIGHEST, {"residual": True, "mirror": True, "estimate": False, "ignore_weights": True, "full_resolution": True}):
        assert through_json(Settings(**values)) == Settings(**values)
        assert {name: getattr(through_json(Settings(**values)), name) for name in values} == values


@pytest.mark.parametrize("name", LOWEST)
def test_values_outside_of_a_range_are_refused_by_name(name):
    for value in (LOWEST[name] - 1, HIGHEST[name] + 1, float("nan"), float("inf"), True, "1", None):
        with pytest.raises(InputError, match=f"The setting {name} must lie between .* got"):
            Settings(**{name: value})


@pytest.mark.parametrize("name", ["steps", "seed", "width", "depth", "slices", "patch_voxels", "batch"])
def test_counts_are_whole_numbers(name):
    for value in (1.5, 1.0):
        with pytest.raises(InputError, match=f"The setting {name} must lie between .* and be a whole number, got {value}"):
            Settings(**{name: value})


@pytest.mark.parametrize("name", ["residual", "mirror", "estimate", "ignore_weights", "full_resolution"])
def test_switches_are_true_or_false(name):
    for value in ("no", 1, None):
        with pytest.raises(InputError, match=f"The setting {name} must be true or false, got {value!r}"):
            Settings.from_json({name: value})


def test_every_number_among_the_settings_has_a_range():
    numbers = {name for name, value in Settings().to_json().items() if not isinstance(value, bool)}
    assert numbers == set(LOWEST)


def test_what_is_refused_is_repeated_in_part_only():
    for settings in ({"seed": "9" * 5000}, {"refine": ["x" * 5000]}, {"y" * 5000: 1}):
        with pytest.raises(InputError) as refused:
            Settings.from_json(settings)
        assert len(refused.value.sentence) < 300


def test_mirroring_is_off_unless_asked():
    assert Settings().mirror is False


def test_a_misspelt_setting_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(InputError, match=r"Unknown setting learning_rat, sed\. Known: batch, .*learning_rate"):
        Settings.from_json({"learning_rat": 0.1, "sed": 1})
