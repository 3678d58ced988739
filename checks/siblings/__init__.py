"""What fails a call and is no fault of routing (MESH941 to MESH950)."""
