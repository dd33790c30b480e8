"""The screen Learn."""
