"""Dialects: what each family of model servers says over HTTP. Pure."""
