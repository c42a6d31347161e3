"""The command line: parse, call the app, render; the exit status comes from the error code."""
