"""The server; see ``app`` for its command."""
