"""Pages: what they say, their charts and templates."""
