"""A TCP proxy that is far away: what goes through it comes out half a round trip later."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType


class Delay:
    """Listens on a port of its own; ``round_trip`` is in seconds."""

    def __init__(self, upstream: int, round_trip: float) -> None:
        self._upstream = upstream
        self._late = round_trip / 2
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> Delay:
        self._thread.start()
        made = asyncio.start_server(self._serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(made, self._loop).result()
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self._loop.call_later(self._late, writer.write, data)
        except ConnectionError:
            pass  # whoever went away is not waited for
        self._loop.call_later(self._late, writer.close)
