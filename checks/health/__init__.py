"""Health, outliers, localities and limits (MESH8xx)."""
