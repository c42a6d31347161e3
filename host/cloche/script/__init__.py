"""Untrusted Python scripts, each in a fresh sandbox: `run_python`, runners, sessions, and `cloche exec`."""
