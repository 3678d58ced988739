"""Live evidence as resources: every probe is read-only, bounded and optional."""
