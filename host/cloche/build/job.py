"""One build in progress: what every language's recipe gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloche.build.cache import BuildCache
from cloche.build.failure import build_error
from cloche.build.settings import BuildSettings


@dataclass(frozen=True, slots=True)
class Job:
    """Where the inputs of one build lie, all inside its private `work` directory.

    `app` holds the plugin's sources, `wit` its world with what that needs, `sdk` the guest SDK, `packages` the bundled
    Python packages. `progress` takes one line of text for people.
    """

    settings: BuildSettings
    work: Path
    cache: BuildCache
    progress: Callable[[str], None]

    @property
    def name(self) -> str:
        """The plugin, for messages."""
        return self.settings.name

    @property
    def app(self) -> Path:
        """The plugin's sources."""
        return self.work / "app"

    @property
    def wit(self) -> Path:
        """The world and the packages that it needs."""
        return self.work / "wit"

    @property
    def sdk(self) -> Path:
        """The guest SDK."""
        return self.work / "sdk"

    @property
    def packages(self) -> Path:
        """Bundled Python packages."""
        return self.work / "packages"

    @property
    def source(self) -> Path:
        """The main source file."""
        return self.app / self.settings.source

    def result(self, path: Path) -> bytes:
        """The component that a tool wrote. Raises: ContractError (`component.build`) when there is none."""
        try:
            return path.read_bytes()
        except OSError as error:
            raise build_error(self.name, "the tool ended without writing a component") from error
