"""The panel's tables: annotated slices, segments, and places to look at again. They show the Controller and call it; signals of their own
filling are ignored."""

import qt

from ..i18n import number
from ..i18n import tr as _
from ..scene.Segments import structureIDs
from .Theme import lineHeight

_MOST_LINES = 9  # of text, a table is high; then it scrolls


def _item(text, checked=None, tip="", swatch=None):
    item = qt.QTableWidgetItem(text)
    flags = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
    if checked is not None:
        flags = flags | qt.Qt.ItemIsUserCheckable
        item.setCheckState(qt.Qt.Checked if checked else qt.Qt.Unchecked)
    item.setFlags(flags)
    if tip:
        item.setToolTip(tip)
    if swatch is not None:
        item.setIcon(swatch)
    return item


def _swatch(color, size: int):
    pixmap = qt.QPixmap(size, size)
    pixmap.fill(qt.QColor(*(round(255 * c) for c in color)))
    return qt.QIcon(pixmap)


def _prepare(table, columns, stretched: int) -> None:
    """One column takes the width that the others leave, and its text as many lines as it needs; the table is as high as its rows, up to a limit."""
    table.setColumnCount(len(columns))
    table.setHorizontalHeaderLabels(columns)
    header, rows = table.horizontalHeader(), table.verticalHeader()
    header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    header.setSectionResizeMode(stretched, qt.QHeaderView.Stretch)
    rows.setVisible(False)
    rows.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    table.setSizeAdjustPolicy(qt.QAbstractScrollArea.AdjustToContents)
    table.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
    table.setMaximumHeight(2 * _MOST_LINES * lineHeight(table))
    table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)


class SliceTable:
    def __init__(self, table, controller) -> None:
        self._table, self._controller, self._rows, self._key = table, controller, (), None
        _prepare(table, (_("View"), _("Position"), _("Complete"), _("Use"), _("Voxels per segment")), stretched=4)
        table.connect("cellChanged(int,int)", self._onChanged)
        table.connect("cellDoubleClicked(int,int)", self._onDoubleClicked)

    def update(self) -> None:
        strokes = self._controller.strokes
        rows = strokes.slices if strokes is not None else ()
        names = {s.id: s.name for s in _segments(strokes)}
        key = (rows, tuple(names.items()))
        if key == self._key:
            return
        self._key, self._rows = key, rows
        self._table.blockSignals(True)
        self._table.setRowCount(len(rows))
        for n, row in enumerate(rows):
            voxels = ", ".join(f"{names.get(sid, sid)} {number(count)}" for sid, count in row.voxels.items()) or _("nothing painted")
            self._table.setItem(n, 0, _item(row.plane, tip=_("Slice {index} of the volume. Double click jumps there.").format(index=row.index)))
            self._table.setItem(n, 1, _item(f"{number(row.position_mm, 1)} mm"))
            self._table.setItem(n, 2, _item("", row.complete, _("Finished: what is unpainted on this slice is background.")))
            self._table.setItem(n, 3, _item("", not row.ignored, _("Unticked: the strokes on this slice are kept, but not trained on.")))
            self._table.setItem(n, 4, _item(voxels, tip=voxels))
        self._table.blockSignals(False)

    def _onChanged(self, row: int, column: int) -> None:
        place, ticked = self._rows[row], self._table.item(row, column).checkState() == qt.Qt.Checked
        if column == 2:
            self._controller.setSliceChoice(place.axis, place.index, complete=ticked)
        elif column == 3:
            self._controller.setSliceChoice(place.axis, place.index, ignored=not ticked)

    def _onDoubleClicked(self, row: int, _column: int) -> None:
        self._controller.jumpToSlice(self._rows[row].axis, self._rows[row].index)


class SegmentTable:
    def __init__(self, table, controller) -> None:
        self._table, self._controller, self._ids, self._key = table, controller, [], None
        _prepare(table, (_("Segment"), _("Takes part"), _("Keep as is"), _("Estimated Dice")), stretched=0)
        self._swatchSize = lineHeight(table) * 3 // 4
        table.connect("cellChanged(int,int)", self._onChanged)

    def update(self) -> None:
        rows = self._wanted()
        if rows == self._key:
            return
        self._key, self._ids = rows, [row[0] for row in rows]
        self._table.blockSignals(True)
        self._table.setRowCount(len(rows))
        for n, (__, name, color, trained, locked, estimate) in enumerate(rows):
            self._table.setItem(n, 0, _item(name, swatch=_swatch(color, self._swatchSize)))
            self._table.setItem(n, 1, _item("", trained, _("Unticked: this segment takes no part; its voxels say nothing.")))
            self._table.setItem(n, 2, _item("", locked, _("Ticked: the result neither shows nor replaces this segment; its strokes still teach.")))
            self._table.setItem(n, 3, _item(estimate, tip=_("Dice that is expected, measured on strokes that were held back from training.")))
        self._table.blockSignals(False)

    def _wanted(self) -> list:
        controller = self._controller
        node = controller.segmentationNode
        if node is None:
            return []
        segmentation, locked, unused = node.GetSegmentation(), controller.parameters.get("locked"), controller.parameters.get("unused")
        rows = []
        for sid in structureIDs(segmentation):
            segment, estimate = segmentation.GetSegment(sid), controller.report.estimate.get(sid)
            text = "" if estimate is None else number(estimate, 2)
            rows.append((sid, segment.GetName(), tuple(segment.GetColor()), sid not in unused, sid in locked, text))
        return rows

    def _onChanged(self, row: int, column: int) -> None:
        ticked = self._table.item(row, column).checkState() == qt.Qt.Checked
        if column == 1:
            self._controller.setSegmentChoice(self._ids[row], unused=not ticked)
        elif column == 2:
            self._controller.setSegmentChoice(self._ids[row], locked=ticked)


class PlaceTable:
    """A sentence and three buttons a row. section: what holds the table, hidden while there is nothing to say."""

    def __init__(self, table, section, controller) -> None:
        self._table, self._section, self._controller, self._places = table, section, controller, None
        _prepare(table, (_("What"), _("Show"), _("Fix"), _("Keep")), stretched=0)
        table.horizontalHeader().setVisible(False)

    def update(self) -> None:
        places = self._controller.places
        if places == self._places:
            return
        self._places = places
        self._section.visible = bool(places)
        self._table.setRowCount(len(places))
        for n, place in enumerate(places):
            self._table.setItem(n, 0, _item(place.sentence, tip=place.sentence))
            for column, (text, tip, call) in enumerate(self._actions(), start=1):
                button = qt.QToolButton()
                button.text = text
                button.focusPolicy = qt.Qt.NoFocus
                button.setToolTip(tip)
                button.connect("clicked()", lambda call=call, place=place: call(place))
                self._table.setCellWidget(n, column, button)

    def _actions(self) -> tuple:
        controller = self._controller
        return (
            (_("Show"), _("Jumps there in all slice views."), controller.showPlace),
            (_("Fix"), _("Jumps there, and chooses the segment that it looks like for painting."), controller.fixPlace),
            (_("Keep"), _("It is right as it is: not shown again."), controller.keepPlace),
        )


def _segments(strokes) -> tuple:
    if strokes is None:
        return ()
    background = strokes.classes.background
    return strokes.classes.segments + ((background,) if background else ())
