"""What the auditor is told: records from exchanges, the chain over them. Pure."""
