"""LLMs that run in this process."""
