"""One folder a screen: ``screen.py`` builds it (components) and binds it (events); the other files know no events."""
