"""Endpoint → scores, with a judge."""
