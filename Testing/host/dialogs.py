"""Modal dialogs would stop a test for ever: they are recorded and answered by the test's script, or raise."""

STATIC = {
    "QFileDialog": {"getOpenFileName", "getSaveFileName", "getOpenFileNames", "getExistingDirectory"},
    "QMessageBox": {"question", "information", "warning", "critical", "about"},
    "QInputDialog": {"getText", "getItem", "getInt", "getDouble", "getMultiLineText"},
    "QColorDialog": {"getColor"},
    "QFontDialog": {"getFont"},
    "QDesktopServices": {"openUrl"},
}

shown = []  # (class, function, what it would have shown)
answers = {}  # (class, function) -> value, or a callable that gets what would have been shown


def ask(class_name, function, *content):
    """Record the dialog and return the scripted answer; raises RuntimeError without one."""
    shown.append((class_name, function, content))
    key = (class_name, function)
    if key not in answers:
        raise RuntimeError(f"modal dialog {class_name}.{function}{content} without a scripted answer: set host.answers[{key}]")
    return answers[key](*content) if callable(answers[key]) else answers[key]
