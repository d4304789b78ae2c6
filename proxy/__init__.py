"""`hip`, the hardened inference proxy: no more leaves a model server than the policy says."""

__version__ = "0.1.0"
