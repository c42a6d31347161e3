"""A greeter. `greeting` in the plugin's configuration changes the word."""

from wit_world import exports

from cloche_guest import config, export, log

DEFAULT_GREETING = "Hello"


@export
class Greeter(exports.Greeter):
    """The extension point `cloche:example/greeter`."""

    def greet(self, name: str) -> str:
        """A greeting for `name`."""
        # Where the operator grants neither, the greeting is the default and the line is dropped.
        greeting = config.get("greeting", DEFAULT_GREETING)
        log.debug("greeting", context="hello", characters=len(name))
        return f"{greeting}, {name}!"
