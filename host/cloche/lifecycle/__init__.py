"""The life of a plugin: states, events and the actions that follow, as a pure table."""
