"""Control plane, delivery and proxies (MESH9xx): what its findings have in common."""
