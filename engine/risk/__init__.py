"""Risk of a book: characteristics of coins, factor returns, one covariance for the whole project."""
