"""Regions of an image: masks from clicks, boxes or a search for everything."""
