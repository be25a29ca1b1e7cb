"""Whether a live account still does what was promoted: plans, costs and the edge, from the journal alone."""
