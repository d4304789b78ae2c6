"""Detectors and query sequences: the arithmetic of suspicion. Pure."""
