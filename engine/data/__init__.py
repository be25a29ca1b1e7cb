"""The data layer: sources, the hourly schema, the cache with its manifest, and the way from there to a panel."""
