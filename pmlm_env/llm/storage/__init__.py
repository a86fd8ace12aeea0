"""Cache of replies, and accounting of what they cost."""
