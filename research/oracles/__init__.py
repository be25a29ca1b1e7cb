"""One idea a file. Name them by dotted path: ``research.oracles.momentum:Momentum``."""
