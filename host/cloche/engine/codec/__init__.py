"""Python values to the engine and back: plans for each WIT type, and the carrier over engine values."""
