"""The report: one HTML file from a summary, without script, network or anything to load."""
