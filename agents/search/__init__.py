"""Searches of one prompt with its own reference: what editing could reach."""
