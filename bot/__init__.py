"""The process: clusters in, alerts over time, messages out."""
