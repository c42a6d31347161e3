"""Child processes that can do little, cannot outlive their bounds, and leave nothing behind.

`child` runs a program or a piece of our own Python in one; `level` says how well this system can confine.
"""
