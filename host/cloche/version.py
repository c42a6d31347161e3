"""The version of this package, without asking the package index of the installation."""

VERSION = "0.1.0"
