"""Weights by name: drawn in blocks (named, blocks), kept in files, loaded into models."""
