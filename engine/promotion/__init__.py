"""A promotion: the candidate, the gates before it, the spec."""
