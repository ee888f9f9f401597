"""A segment that nobody painted, through a real worker: said once, under the command that it is about, and no hindrance."""

from dataclasses import replace

import numpy as np
import pytest

from phantoms import make_job
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.protocol import Error, Preview, Result, Train, Update, Warning


@pytest.mark.slow
def test_it_is_told_when_training_begins_joins_in_when_it_is_painted_and_is_empty_again(talk, tmp_path, phantom):
    job = make_job(tmp_path / "job", replace(phantom, classes=ClassTable.numbered(4, ["bright", "dark", "spleen", "vein"])))
    ready = talk.open(job)
    assert "spleen: 0 voxels" in ready.summary
    talk.client.send(Train("t"))
    result = talk.until(Result, id="t")
    assert set(np.unique(np.load(result.file))) == {0, 1, 2}
    (warning,) = [e for e in talk.events if isinstance(e, Warning)]
    assert (warning.id, warning.code, warning.revision) == ("t", "unpainted", 1)
    assert warning.sentence == "Nothing is painted in spleen, vein: they stay empty."
    assert warning.advice == "Paint them on a slice, and they join in."
    assert result.share == 0  # a network of a dozen steps has no say
    assert set(result.estimate) == {"Segment_1", "Segment_2"}

    dense, box = np.load(result.file), [[2, 3], [1, 3], [1, 5]]
    for revision, value in ((2, 4), (3, 0)):
        np.save(job / f"annotation-{revision:04d}.npy", np.full((1, 2, 4), value, np.uint8))
        talk.client.send(Update(f"u{revision}", f"annotation-{revision:04d}.npy", revision, [], box))
        for _ in range(2):  # growing's answer, then the refined one
            preview = talk.until(Preview, id=f"u{revision}")
            part = tuple(slice(*edge) for edge in preview.box) if preview.box else slice(None)
            dense[part] = np.load(preview.file)
            assert set(np.unique(dense)) == ({0, 1, 2, 3} if value else {0, 1, 2})
    talk.client.send(Train("again", {"steps": 2}))
    assert set(np.unique(np.load(talk.until(Result, id="again").file))) == {0, 1, 2}
    said = [(e.id, e.sentence) for e in talk.events if isinstance(e, (Warning, Error))]
    assert said == [("t", warning.sentence), ("u2", "Nothing is painted in vein: it stays empty.")]
