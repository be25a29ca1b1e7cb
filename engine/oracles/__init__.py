"""Oracles: the interface, loading by dotted path, fingerprints of code, fixed weights, signal analysis."""
