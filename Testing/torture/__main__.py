"""Run the campaign."""

import sys

from .attacks import ATTACKS
from .campaign import main

sys.exit(main(ATTACKS))
