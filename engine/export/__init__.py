"""Taking a tuned model away: files that other programs read without this one.

``targets`` says which; each has a module of its own here.
"""
