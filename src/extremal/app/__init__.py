"""The app: a page in the browser that explains images. `server.serve` starts it."""
