"""Attacks as a client makes them, against a route with its defences and without: what a policy is worth, in numbers.

A client of the proxy and no part of it: nothing here is imported where requests are served.
"""
