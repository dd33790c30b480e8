"""Images, uploads and episodes."""
