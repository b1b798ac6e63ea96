"""Hostile clients of a load test: they hold connections, send what is too long, and ask too often.

None of them may break the server or starve the students; what each is answered is counted.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from bench.serving.client import CHAT

_TIMEOUT = 90.0
_LONG_TEXT = 1_600_000


@dataclass
class HostileCrowd:
    """Clients that attack one server by raw connections, until they are cancelled.

    `outcomes` counts by attack the status line of the answer, or how the connection ended.
    """

    port: int
    model: str
    outcomes: Counter[str] = field(default_factory=Counter)

    async def attack(self, clients: int) -> None:
        """So many clients, each of one kind, again and again."""
        kinds: list[Callable[[], Coroutine[Any, Any, str]]] = [
            self.stay_silent,
            self.drip_a_header,
            self.drip_a_body,
            self.send_digits,
            self.send_two_lengths,
            self.send_nonsense,
            self.ask_for_eight,
        ]
        await asyncio.gather(*(self._repeat(kinds[at % len(kinds)], at) for at in range(clients)))

    async def stay_silent(self) -> str:
        """Opens a connection, and says nothing."""
        return await self._exchange(b"")

    async def drip_a_header(self) -> str:
        """Sends the bytes of a header one by one."""
        return await self._exchange(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 400, drip=1
        )

    async def drip_a_body(self) -> str:
        """Sends the bytes of a body one by one."""
        return await self._exchange(self._head(4000), b"x" * 4000, drip=1)

    async def send_digits(self) -> str:
        """Sends a question of 1.6 million digits, which is costly to tokenize."""
        body = self._chat("7" * _LONG_TEXT)
        return await self._exchange(self._head(len(body)) + body)

    async def send_two_lengths(self) -> str:
        """Sends a body with a length and in chunks, as requests are smuggled past a proxy."""
        head = self._head(5).replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        return await self._exchange(head + b"0\r\n\r\n")

    async def send_nonsense(self) -> str:
        """Sends bytes that are no HTTP."""
        return await self._exchange(b"HELO \xff\x00\r\n\r\n")

    async def ask_for_eight(self) -> str:
        """Asks for eight long answers at once."""
        body = self._chat("Tell me a story.", n=8, max_tokens=400)
        return await self._exchange(self._head(len(body)) + body)

    async def _repeat(self, kind: Callable[[], Coroutine[Any, Any, str]], seed: int) -> None:
        pause = random.Random(seed)
        while True:
            try:
                outcome = await kind()
            except OSError as error:
                outcome = type(error).__name__
            self.outcomes[f"{kind.__name__}: {outcome}"] += 1
            await asyncio.sleep(pause.random())

    async def _exchange(self, *parts: bytes, drip: float = 0) -> str:
        """Sends the parts, the last byte by byte with `drip` seconds between; the status line."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        reading = asyncio.create_task(asyncio.wait_for(reader.readline(), _TIMEOUT))
        try:
            for part in parts[: len(parts) - bool(drip)]:
                writer.write(part)
            for byte in parts[-1] if drip else b"":
                if reading.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(drip)
            line = (await reading).decode(errors="replace").split()
            return line[1] if len(line) > 1 else "closed"
        except TimeoutError:
            return "open after 90 s"
        finally:
            reading.cancel()
            writer.close()

    def _head(self, length: int) -> bytes:
        lines = (f"POST {CHAT} HTTP/1.1", "Host: localhost", "Content-Type: application/json")
        return "\r\n".join((*lines, f"Content-Length: {length}", "", "")).encode()

    def _chat(self, question: str, **options: Any) -> bytes:
        messages = [{"role": "user", "content": question}]
        return json.dumps({"model": self.model, "messages": messages, **options}).encode()
