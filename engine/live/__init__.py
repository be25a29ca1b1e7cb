"""From weights to orders on an exchange, or on paper: the DEX interface, the planner and the executor.

``HyperLiquidDEX``, ``PaperDEX`` and ``PortfolioManager`` are public names of :mod:`engine`.
"""
