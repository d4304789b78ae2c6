"""Adapters: input and output behind the ports. They know no policy, and they map every foreign exception."""
