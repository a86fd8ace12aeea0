"""Prompts, edits, outcomes and the task: no language model, no domain."""
