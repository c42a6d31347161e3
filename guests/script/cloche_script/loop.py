"""An event loop that needs no sockets: components have no socket pairs, which the loops of asyncio want."""

import asyncio
import asyncio.base_events
import asyncio.events
import time


class _Sleeper:
    """What the loop asks for events. There are none; it sleeps until the next timer."""

    def select(self, timeout: float | None = None) -> list[object]:
        if timeout is None:
            raise RuntimeError("every task waits, and nothing is left that could wake one")
        if timeout > 0:
            time.sleep(timeout)
        return []

    def close(self) -> None:
        pass


class ScriptEventLoop(asyncio.base_events.BaseEventLoop):
    """Tasks, timers and futures. Work for executors, as of `asyncio.to_thread`, is done at once, without a thread."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Sleeper()

    def _process_events(self, event_list: list[object]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor, func, *args):  # noqa: ARG002 - there is none
        self._check_closed()
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # it belongs to whoever awaits
            future.set_exception(error)
        return future


class _Policy(asyncio.events._BaseDefaultEventLoopPolicy):
    _loop_factory = ScriptEventLoop


def install() -> None:
    """Have `asyncio.run` and `asyncio.new_event_loop` use this loop."""
    asyncio.events._event_loop_policy = _Policy()
    asyncio.EventLoop = asyncio.SelectorEventLoop = ScriptEventLoop
