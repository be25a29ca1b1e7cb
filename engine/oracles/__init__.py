"""Oracles: the interface, loading one by its path, fingerprints of code, fixed weights, signal analysis."""
