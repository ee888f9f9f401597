"""The list of places to look at again: shown, jumped to, fixed, kept, and hidden while there is nothing to say."""

from sparseseg.contract.place import AT_A_TIME, Place


def place(index=20, column=50, painted="", believed="Liver"):
    box = (slice(index, index + 1), slice(40, 60), slice(column, column + 10))
    sentence = f"The axial slice {index} is complete, but what looks like Liver is background there (120 voxels)."
    return Place(0, index, box, (column + 4, 48, index), painted, believed, 120, 0.9, sentence)


def show(host, panel, places):
    panel.controller.report.places = places
    panel.controller.changed()
    host.spin(0.2)


def is_shown(panel):
    return panel.ui.placesSection.isVisibleTo(panel.ui.placesSection.parentWidget())


def press(host, panel, row, column):
    host.click(panel.ui.placeTable.cellWidget(row, column))
    host.spin(0.2)


def test_nothing_is_shown_while_there_is_nothing_to_say(host, panel, begin):
    begin()
    assert not is_shown(panel)
    show(host, panel, [place()])
    assert is_shown(panel)
    show(host, panel, [])
    assert not is_shown(panel)


def test_the_surest_ten_are_listed_in_words(host, panel, begin, picture):
    begin()
    show(host, panel, [place(index) for index in range(5, 25)])
    table = panel.ui.placeTable
    assert table.rowCount == AT_A_TIME
    assert table.item(0, 0).text() == place(5).sentence
    assert [table.cellWidget(0, n).text for n in (1, 2, 3)] == ["Show", "Fix", "Keep"]
    picture("8-places")


def test_show_jumps_in_every_slice_view(host, panel, begin):
    import slicer

    from SparseSegSlicerLib.scene import SliceViews

    volume, _ = begin()
    show(host, panel, [place(20, 50)])
    press(host, panel, 0, 1)
    shown = {SliceViews.sliceShown(node, volume) for node in SliceViews.sliceNodes(slicer.mrmlScene)}
    assert shown == {(0, 20), (1, 48), (2, 54)}


def test_fix_chooses_the_segment_to_paint_with(host, panel, begin):
    from SparseSegSlicerLib.scene.Segments import backgroundSegmentID

    begin()
    show(host, panel, [place(believed="Kidney"), place(30, painted="Liver", believed="")])
    press(host, panel, 0, 2)
    assert panel.ui.editor.currentSegmentID() == "Kidney"
    press(host, panel, 1, 2)
    assert panel.ui.editor.currentSegmentID() == backgroundSegmentID(panel.controller.segmentationNode.GetSegmentation())


def test_what_is_kept_is_not_shown_again_and_the_next_moves_up(host, panel, begin):
    from SparseSegSlicerLib.session.Parameters import Parameters

    begin()
    places = [place(index) for index in range(5, 5 + AT_A_TIME + 1)]
    show(host, panel, places)
    press(host, panel, 0, 3)
    assert panel.controller.places == places[1:]
    assert panel.ui.placeTable.rowCount == AT_A_TIME
    again = place(5, 52)  # the same place, a little different
    show(host, panel, [again, place(5, 70), place(5, believed="Kidney")])
    assert panel.controller.places == [place(5, 70), place(5, believed="Kidney")]
    assert Parameters(panel.controller.scene).get("kept") == panel.controller.parameters.get("kept")
    assert len(panel.controller.parameters.get("kept")) == 1
