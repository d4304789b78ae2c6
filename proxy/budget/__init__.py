"""Budgets: windows, costs and what the caller is told of them. Pure."""
