"""Searches for the best edits of a single prompt, scored with its own reference: what editing could achieve."""
