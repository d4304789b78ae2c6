"""The demo's embedded world: a model server, an identity provider and real digits, all on loopback.

Nothing here protects anything; it is what the proxy stands in front of when a visitor has no servers of their own.
"""
