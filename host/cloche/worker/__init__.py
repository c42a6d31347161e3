"""Worker processes: where untrusted components run, locked down and killable. A "worker" is always a process.

`child` is what runs in one; `process`, `instance` and `house` are the host's side of it; `messages` and `channel` are
what both speak.
"""
