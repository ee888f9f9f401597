"""`python -m sparseseg`."""

import sys

if __name__ == "__main__":
    from sparseseg.cli import main

    sys.exit(main())
