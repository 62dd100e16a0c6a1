"""From a network, an input and a target to a result with its evidence."""
