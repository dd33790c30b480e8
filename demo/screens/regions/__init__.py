"""The screen Regions."""
