"""Building components from source: settings, sources, WIT, tools for each language, a cache, and new projects."""
