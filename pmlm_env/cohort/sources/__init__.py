"""Readers of cohorts, one module per file format."""
