"""Parts of a promotion: the candidate and the gates before it."""
