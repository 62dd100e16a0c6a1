"""Long runs that survive: their store, and what works through them."""
