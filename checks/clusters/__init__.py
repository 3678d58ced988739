"""What several clusters and networks make of a host (MESH6xx)."""
