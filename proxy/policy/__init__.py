"""The policy language: files to an immutable policy, a policy to decisions. Pure."""
