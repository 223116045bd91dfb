"""Boxes around the objects of a picture, with their classes."""
