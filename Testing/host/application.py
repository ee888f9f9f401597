"""Stand-ins for the application object and what hangs on it: layout manager, slice views, modules, extensions."""

from PySide6 import QtCore, QtWidgets

from host import catalogue
from host.standin import StandIn, behaviour, standin
from host.standins import qMRMLWidget
from host.wrapping import wrap

SLICE_VIEWS = ("Red", "Green", "Yellow")  # the order of Slicer's layout manager


@behaviour
class qSlicerCoreApplication(StandIn):
    """slicer.app; `host` is set by the host."""

    host = None

    def prepare(self):
        version = catalogue.version()
        major, minor, patch = (int(part) for part in version.split("."))
        self.setApplicationName("Slicer")
        self.setOrganizationName("TestHost")
        self.setApplicationVersion(f"{version}-2026-01-01")
        self.setQuitOnLastWindowClosed(False)
        self.values.update(majorVersion=major, minorVersion=minor, mainApplicationMajorVersion=major, mainApplicationMinorVersion=minor)
        self.values.update(
            mainApplicationPatchVersion=patch, mainApplicationName="Slicer", releaseType="Stable", revision="0", repositoryRevision="0"
        )
        self.values.update(os="linux", arch="amd64", platform="linux-amd64", isInstalled=True)

    def do_mrmlScene(self):
        return self.host.scene

    def do_applicationLogic(self):
        return self.host.application_logic

    def do_moduleLogic(self, name):
        return self.host.module_manager.do_module(name).do_logic()

    def do_moduleManager(self):
        return self.host.module_manager

    def do_layoutManager(self):
        return self.host.layout_manager

    def do_extensionsManagerModel(self):
        return self.host.extensions

    def do_processEvents(self):
        QtWidgets.QApplication.processEvents()

    def do_startupEnvironment(self):
        return QtCore.QProcessEnvironment.systemEnvironment()

    def do_testingEnabled(self):
        return self.host.testing_enabled

    def do_settings(self):
        """One file serves as user's, revision's and default settings."""
        if "settings" not in self.parts:
            self.parts["settings"] = QtCore.QSettings(self.host.settings_path, QtCore.QSettings.IniFormat)
        return self.parts["settings"]

    do_userSettings = do_revisionUserSettings = do_defaultSettings = do_settings

    def get_slicerUserSettingsFilePath(self):
        return self.host.settings_path


@behaviour
class qMRMLSliceWidget(qMRMLWidget):
    """One slice view: the real slice logic, no picture."""

    logic = None

    def do_sliceLogic(self):
        return self.logic

    do_logic = do_sliceLogic

    def do_mrmlSliceNode(self):
        return self.logic.GetSliceNode()

    do_mrmlAbstractViewNode = do_mrmlSliceNode

    def do_mrmlSliceCompositeNode(self):
        return self.logic.GetSliceCompositeNode()

    def do_fitSliceToBackground(self):
        self.logic.FitSliceToBackground()

    def get_sliceViewName(self):
        return self.logic.GetSliceNode().GetLayoutName()

    def get_sliceOrientation(self):
        return self.logic.GetSliceNode().GetOrientation()

    def set_sliceOrientation(self, orientation):
        self.logic.GetSliceNode().SetOrientation(orientation)


@behaviour
class qMRMLLayoutManager(StandIn):
    """Three slice views and one 3-D view."""

    host = None

    def prepare(self):
        self.values.update(threeDViewCount=1, tableViewCount=0, plotViewCount=0, enabled=True, layout=3)

    def do_mrmlScene(self):
        return self.host.scene

    def do_sliceViewNames(self):
        return SLICE_VIEWS

    def do_sliceWidget(self, name):
        if name not in SLICE_VIEWS:
            return None
        if name not in self.parts:
            self.parts[name] = standin("qMRMLSliceWidget")()
            self.parts[name].logic, self.parts[name].scene = self.host.slice_logics[name], self.host.scene
        return self.parts[name]

    def do_mrmlSliceLogics(self):
        return self.host.slice_logic_collection

    def do_resetSliceViews(self):
        for logic in self.host.slice_logics.values():
            logic.FitSliceToAll()


@behaviour
class qSlicerAbstractCoreModule(StandIn):
    """slicer.modules.<name>."""

    module_logic = panel = None

    def do_logic(self):
        return self.module_logic

    def do_widgetRepresentation(self):
        if self.panel is None:
            self.panel = standin("qSlicerAbstractModuleWidget")()
        return self.panel


@behaviour
class qSlicerModuleManager(StandIn):
    """Knows the modules that the host has."""

    host = None

    def do_module(self, name):
        return self.host.modules.get(name.lower())

    def do_modulesNames(self):
        return tuple(module.objectName() for module in self.host.modules.values())


@behaviour
class qSlicerExtensionsManagerModel(StandIn):
    """Installs by remembering the name; the test reads and sets `installed`."""

    def prepare(self):
        self.installed = set()

    def get_installedExtensions(self):
        return tuple(sorted(self.installed))

    def get_installedExtensionsCount(self):
        return len(self.installed)

    def do_isExtensionInstalled(self, name):
        return name in self.installed

    do_isExtensionEnabled = do_isExtensionInstalled

    def do_installExtensionFromServer(self, name, *options):
        self.installed.add(name)
        self.emit_("extensionInstalled(QString)", name)
        return True


def module_object(name, logic=None, **properties):
    """(stand-in, proxy) of a module: loadable with a logic, else scripted; `name` in Slicer's spelling, for example "Volumes"."""
    module = standin("qSlicerLoadableModule" if logic else "qSlicerScriptedLoadableModule")()
    module.setObjectName(name)
    module.module_logic = logic
    module.values.update(name=name, title=name, isInstalled=True, **properties)
    return module, wrap(module)
