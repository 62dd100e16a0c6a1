"""The app: drop a photograph on a page, and see what the network needed of it. `serve` starts it."""

from extremal.app.server import serve

__all__ = ["serve"]
