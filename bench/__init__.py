"""Measures the coordinator as production runs it: real processes, real certificates, mock engines."""
