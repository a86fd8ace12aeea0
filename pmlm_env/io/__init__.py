"""Reading and writing: files that no crash leaves half written, files from strangers, TOML, text for terminals."""
