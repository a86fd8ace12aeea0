"""The report as one HTML page, which opens from disk and asks for nothing over the network."""
