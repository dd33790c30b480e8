"""The screen Continual."""
