"""The laboratory behind `make bench`: processes on cores, an upstream, contenders, load, cases, and the report."""
