"""Runs Python scripts. What a script can import is imported here, while the component is built."""

from cloche_script import library  # first: it imports everything

library.preload()

from cloche_script import check, execution, state  # noqa: E402 - after what scripts can import, here and below
from wit_world import exports  # noqa: E402 - likewise
from wit_world.exports import executor as wit  # noqa: E402 - likewise

from cloche_guest import Err, at_start, export  # noqa: E402 - likewise

at_start(state.start)


@export
class Executor(exports.Executor):
    """The extension point `cloche:script/executor`."""

    def execute(self, script: wit.Script) -> wit.Outcome:
        """Run `script` to its end."""
        try:
            ran = execution.execute(script)
        except state.NoDirectory as error:
            raise Err(wit.Error_NoDirectory(str(error))) from None
        except state.InvalidScript as error:
            raise Err(wit.Error_InvalidScript(str(error))) from None
        return wit.Outcome(ran.status, ran.out_of_memory, ran.value, ran.note, ran.traceback)

    def validate(self, code: str, name: str) -> None:
        """Say whether `code` can be compiled."""
        found = check.problem(code, name)
        if found is not None:
            raise Err(wit.Problem(*found))


state.built()
library.freeze()
