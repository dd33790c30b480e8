"""A method from images to its result, and adapters on disk."""
