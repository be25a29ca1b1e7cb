"""The simulation: the kernel, one backtest or many, sizing, overlays, costs, results and their metrics."""
