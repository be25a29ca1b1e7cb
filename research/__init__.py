"""Oracles, studies and promoted strategies. Imports ``engine``; ``engine`` never imports it."""
