"""Rate limit on failed logins (brute force): wrong passwords are slowed, the right one passes."""

import asyncio
import ipaddress
import time
from collections import Counter, OrderedDict, deque
from typing import Any

from zephyr.tutor.api_errors import ApiError


class LoginRateLimiter:
    """Failed logins of the last minute, by client address (IPv6: by its /64 network).

    An address from which the right password came within the last hour is known: it may be that of
    a whole school (NAT), and its logins never wait. Any other address with `MAX_PER_ADDRESS`
    failures in a minute has its next logins judged one every `PAUSE_SECONDS`, right ones too, since
    a guesser could otherwise tell them apart by their time.
    """

    MINUTE, HOUR = 60.0, 3600.0
    MAX_PER_ADDRESS, MAX_PER_KNOWN_ADDRESS = 10, 300
    MAX_WAITING = 10
    """Maximum number of logins of one address that wait for their turn."""
    PAUSE_SECONDS = 1.0
    MAX_ADDRESSES = 4096
    """Maximum number of addresses that are remembered."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._last_success: OrderedDict[str, float] = OrderedDict()
        self._num_waiting: Counter[str] = Counter()

    async def wait_turn(self, address: str) -> None:
        """Waits until a login may be judged: at once, unless too many of its address were wrong.

        Raises:
            ApiError: as many logins of this address as may are waiting (429).
        """
        network = _network(address)
        if self._is_known(network) or not self.is_limited(address):
            return
        if self._num_waiting[network] >= self.MAX_WAITING:
            raise self.too_many()
        self._num_waiting[network] += 1
        try:
            await asyncio.sleep(self.PAUSE_SECONDS * self._num_waiting[network])
        finally:
            self._num_waiting[network] -= 1
            if not self._num_waiting[network]:
                del self._num_waiting[network]

    def is_limited(self, address: str) -> bool:
        """Whether the failures of an address within the last minute have reached its limit."""
        network = _network(address)
        failures = self._failures.get(network, deque())
        while failures and failures[0] < time.monotonic() - self.MINUTE:
            failures.popleft()
        is_known = self._is_known(network)
        return len(failures) >= (self.MAX_PER_KNOWN_ADDRESS if is_known else self.MAX_PER_ADDRESS)

    def too_many(self) -> ApiError:
        """The error (429) of a wrong password too many."""
        wait = int(self.MAX_WAITING * self.PAUSE_SECONDS)
        text = "too many wrong passwords; wait some seconds"
        return ApiError(429, text, code="too_many_guesses", retry_after=wait)

    def record_failure(self, address: str) -> None:
        """Records a failed login of an address."""
        network = _network(address)
        failures = self._failures.setdefault(network, deque(maxlen=self.MAX_PER_KNOWN_ADDRESS))
        failures.append(time.monotonic())
        self._forget_oldest(self._failures, network)

    def record_success(self, address: str) -> None:
        """Records a successful login of an address."""
        network = _network(address)
        self._last_success[network] = time.monotonic()
        self._forget_oldest(self._last_success, network)

    def _is_known(self, network: str) -> bool:
        return time.monotonic() - self._last_success.get(network, -self.HOUR) < self.HOUR

    def _forget_oldest(self, networks: OrderedDict[str, Any], newest: str) -> None:
        networks.move_to_end(newest)
        if len(networks) > self.MAX_ADDRESSES:
            networks.popitem(last=False)


def _network(address: str) -> str:
    """What one client can choose its address from: itself, or the /64 network of IPv6."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return address
    return str(ipaddress.ip_network((int(ip), 64), strict=False))
