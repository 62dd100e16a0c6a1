"""Channels of hidden layers: find those that an answer needs, and visualise them."""
