"""The screen Tune."""
