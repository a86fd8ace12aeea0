"""Replies that are kept, and what was spent on them."""
