"""What tests share: toy networks, data sets, naive re-derivations, and calls of the command line."""
