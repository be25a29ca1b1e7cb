"""A live account against what was promoted: its plans, its costs, its edge."""
