"""How good a result is, how the voices are mixed, and where to annotate next."""
