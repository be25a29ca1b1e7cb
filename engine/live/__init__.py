"""Live trading: target weights, sessions, orders, the journal, and the exchanges that they trade on.

``HyperLiquidDEX``, ``PaperDEX`` and ``PortfolioManager`` are public names of :mod:`engine`.
"""
