"""From the bytes of a plugin.toml to a `Manifest`, or every reason why not."""
