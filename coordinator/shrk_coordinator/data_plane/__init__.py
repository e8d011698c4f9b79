"""The callers' side: HTTP in, bytes out."""
