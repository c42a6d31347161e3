"""Instances in use: pools, the one path of every guest call, and what an embedder holds of a plugin."""
