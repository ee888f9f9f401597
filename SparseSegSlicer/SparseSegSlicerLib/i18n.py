"""How texts and numbers reach the user: translated where Slicer is, and digits as a person writes them."""

import math

try:
    from slicer.i18n import tr  # handed on as it is: it takes the context from the file that calls it
except ImportError:  # slicer-core alone has no translations

    def tr(text: str) -> str:
        return text


_THOUSANDS = "\N{NO-BREAK SPACE}"  # neither comma nor point, which mean different things in different countries


def number(value: float, decimals: int | None = None) -> str:
    """Plain digits, never an exponent. decimals: how many, or None: whole numbers as they are, others to three significant digits."""
    if not math.isfinite(value):
        return "-"
    if decimals is not None:
        text = f"{value:,.{decimals}f}"
    elif value == int(value):
        text = f"{int(value):,}"
    else:
        text = f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace(",", _THOUSANDS)


def duration(seconds: float) -> str:
    """Seconds up to two minutes, then minutes, then hours: as exactly as it can be known beforehand."""
    if seconds < 120:
        return tr("{count} s").format(count=number(round(seconds)))
    if seconds < 7200:
        return tr("{count} min").format(count=number(round(seconds / 60)))
    return tr("{count} h").format(count=number(seconds / 3600, 1))
