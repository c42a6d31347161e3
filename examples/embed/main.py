"""An application with an extension point and a capability of its own. Run it: python examples/embed/main.py"""

from __future__ import annotations

import random
from pathlib import Path

from dice import DiceCapability

import cloche

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Load the plugin, play, and show what each call cost or why it was refused."""
    with cloche.Host(
        policy=HERE / "policy.toml",
        capabilities=[DiceCapability(random.Random(7))],
        extension_points=[HERE / "wit"],
    ) as host:
        host.load(HERE / "plugin", trust=cloche.Trusted("part of this example"))
        for plugin in host.providers("acme:game/player"):
            player = plugin["acme:game/player"]
            outcome = player.play.call(10, 6)
            print(f"{plugin.id}: {outcome.value} points with ten dice, {outcome.usage.host_calls} host calls")
            try:
                player.play(1, 100)  # asked for in the manifest, but the policy allows 20 sides
            except cloche.GuestError as error:
                print(f"{error.code}: {error.payload}")
            try:
                player.play(5000, 6)  # more host calls than the policy allows
            except cloche.LimitError as error:
                print(f"{error.code} after {error.usage.host_calls if error.usage else 0} host calls")


if __name__ == "__main__":
    main()
