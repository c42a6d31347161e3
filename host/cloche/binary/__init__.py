"""What can be known about, and done to, a component from its bytes alone: no engine, no types, no values.

`header` says what a file is, `survey` measures it before anything compiles it, `plan` turns the measure into the
engine's limits, `probe` adds a function that reports the size of the guest's memory. Every byte is hostile: readers
are bounded, iterative and linear in the size of the input.
"""
