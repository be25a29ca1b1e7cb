"""What is done with an oracle: naming and building it, its code, the look-ahead audit, the analysis of its signal."""
