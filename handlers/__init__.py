"""Slack in: one file for each thing that a person does."""
