"""The version of this package, without asking the package index of the installation, and of the WASI under it."""

VERSION = "0.1.0"

WASI_VERSION = "0.2.12"
"""The WASI that the engine's default version implements, whose WIT is in `wit/deps/wasi-*`."""
