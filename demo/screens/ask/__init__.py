"""The screen Ask."""
