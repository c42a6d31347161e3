"""Everything that happens, as one stream of events, and what is made of it: logs and metrics."""
