"""Bundled oracles, one idea a file, named by dotted path: ``research.oracles.momentum:Momentum``."""
