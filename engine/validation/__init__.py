"""Parts of a verdict: statistics, resampling, robustness runs, and the checks made of them."""
