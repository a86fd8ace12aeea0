"""Word encoders: embeddings of a prompt's words."""
