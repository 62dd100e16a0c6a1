"""The app: drop a photograph on a page, and see what the network needed of it. `server.serve` starts it."""
