"""One host a process: VTK's and Qt's singletons outlive any test, so the hosts are made when first asked for, and closed at the end."""

import os

import pytest

_hosts = {}


def make_host(kind):
    """The host of this process. A panel host serves scene tests too; a scene host that is there already is grown into one."""
    pytest.importorskip("slicer", reason="slicer-core is not installed (pip install -e '.[test]')", exc_type=ImportError)
    if kind == "panel" and "panel" not in _hosts:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        pytest.importorskip("PySide6", reason="PySide6 is not installed (pip install -e '.[test]')")
    if "scene" not in _hosts:
        from host.scene_host import SceneHost

        _hosts["scene"] = SceneHost()
    if kind == "panel" and "panel" not in _hosts:
        from host.slicer_host import Host

        _hosts["panel"] = Host(_hosts["scene"])
    return _hosts[kind]


@pytest.fixture
def scene_host():
    """Real MRML with an empty scene."""
    host = make_host("scene")
    host.clear()
    yield host
    host.clear()


def pytest_sessionfinish():
    for kind in ("panel", "scene"):
        if kind in _hosts:
            _hosts.pop(kind).close()
