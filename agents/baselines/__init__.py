"""What learning is compared with: controls, filters, and searches of one edit for the whole task."""
