"""Who is calling: tokens, keys, factors. Pure."""
