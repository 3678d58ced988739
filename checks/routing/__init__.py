"""VirtualServices and where they lead (MESH2xx)."""
