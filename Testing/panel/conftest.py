"""The `host` of panel tests: a new scene, no windows, no recorded errors; Qt's application lives as long as the process."""

import os
from pathlib import Path

import pytest
from driving import MODULE

PICTURES = os.environ.get("SPARSESEG_SCREENSHOTS", "")  # a folder to keep the screenshots in


@pytest.fixture
def host(pytestconfig):
    """The panel host, active during the test; the test fails if a slot or an observer raised and the test did not clear host.errors."""
    shared = pytestconfig.pluginmanager.get_plugin(str(Path(__file__).parents[1] / "conftest.py"))
    host = shared.make_host("panel")
    host.reset()
    host.activate()
    try:
        yield host
        host.spin()
        raised = list(host.errors)
    finally:
        host.reset()
        host.deactivate()
    if raised:
        pytest.fail("exceptions in slots or observers:\n" + "\n".join(raised))


@pytest.fixture
def panel(host, tmp_path):
    """The module's panel, entered; the engine's self-test is skipped, since it is tested elsewhere."""
    from SparseSegSlicerLib.session.EngineSetup import EngineSetup, EngineState

    with pytest.MonkeyPatch.context() as patch:

        def ready(self):
            self._become(EngineState.READY, "CPU, 2 threads")

        patch.setattr(EngineSetup, "check", ready)
        _, widget, top = host.load_module(MODULE)
        host.enter()
        widget.panel.top, widget.panel.folder = top, tmp_path
        yield widget.panel


@pytest.fixture
def picture(host, panel, tmp_path):
    def take(name):
        panel.update()
        path = host.screenshot(panel.top, Path(PICTURES or tmp_path) / f"{name}.png", width=480)
        assert path.stat().st_size > 5000
        return path

    return take


@pytest.fixture
def begin(host, panel):
    """The sample chosen by the selectors, and a short run of a tiny network set up; what these tests see of a result is the prior's."""

    def begin(steps=8):
        from SparseSegSlicerLib.scene.SamplePhantom import addPhantom

        volume, strokes = addPhantom()
        panel.ui.volumeSelector.setCurrentNode(volume)
        panel.ui.segmentationSelector.setCurrentNode(strokes)
        for name, value in {"steps": steps, "width": 4, "depth": 2, "patch_voxels": 16**3}.items():
            panel.controller.parameters.setSetting(name, value)
        host.spin(until=lambda: panel.controller.strokes is not None, timeout_s=30)
        host.spin(0.2)
        return volume, strokes

    return begin
