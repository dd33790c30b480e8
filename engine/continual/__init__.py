"""Labels that arrive step by step: what is learned, and what is forgotten."""
