"""Output hardening: how exactly a score may speak. Pure."""
