"""Channels of hidden layers: which of them an answer needs, and what they look like."""
