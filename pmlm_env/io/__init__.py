"""Reading and writing: atomic file writes, untrusted files, TOML, and safe text for terminals."""
