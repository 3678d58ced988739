"""Services, their endpoints and workloads (MESH3xx)."""
