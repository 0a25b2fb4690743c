"""Log in at a gateway with the first free client id; errors say why that failed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from random import Random

from ib_async import IB, StartupFetchNONE

from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.errors import (
    ClientIdInUseError,
    GatewayError,
    GatewayLostError,
    GatewayRefusedError,
    GatewayTimeoutError,
    NotAGatewayError,
    TooManyAccountsError,
)
from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.codes import Connectivity, GatewayCode, Listener, said
from position_sync_dagster.settings import Settings

# Longest wait for one answer of the gateway, in seconds: one that is busy after its start
# takes up to ten.
TIMEOUT_S = 15.0

# Pace of our messages: never more than 50 in any second, as the gateway counts them. A process that
# stands still between the clock and the socket sends two bursts at once: each is a small one.
MESSAGE_PACE = (4, 0.1)


# Pauses between two client ids that are in use.
NEXT_CLIENT_ID = Backoff(first_s=0.5, longest_s=2.0, jitter=(1.0, 1.5))

# Maximum number of accounts whose positions `reqPositions` lists.
# Source: IB, "Requesting Positions" (interactivebrokers.github.io/tws-api/positions.html).
LISTED_TOGETHER = 50

# The first bytes of a gateway's first message: its length, and the begin of the version.
GREETING_BYTES = 5


@dataclass(frozen=True, kw_only=True)
class Login:
    """A client that the gateway accepted: what every part of the connection needs of it.

    Attributes:
        settings: Those of the login.
        connectivity: Whether the gateway has IB, and which data farms are broken.
    """

    ib: IB
    client_id: int
    settings: Settings
    connectivity: Connectivity
    timeout_s: float

    @cached_property
    def accounts(self) -> tuple[str, ...]:
        """The accounts of the login."""
        return tuple(self.ib.client.getAccounts())

    def lost(self, awaited: str) -> GatewayLostError:
        """Return the error of a connection that ended before an answer came."""
        return GatewayLostError(
            f"The connection to {self.settings.gateway_id} ended while {awaited} were awaited.",
            remedy="It is tried again.",
        )


async def log_in(
    settings: Settings,
    *,
    sleep: Callable[[float], Awaitable[None]],
    timeout_s: float | None = None,
    listeners: Iterable[Listener] = (),
) -> Login:
    """Log in with the first client id of the pool that is free.

    After an id that is in use (326) there is a pause before the next attempt.

    Args:
        listeners: Each gets every message, from the log-in on.

    Raises:
        GatewayRefusedError: Nothing listens there, or it hangs up at once.
        GatewayTimeoutError: It accepts the connection and then sends nothing, or no positions.
        NotAGatewayError: It speaks another protocol.
        ClientIdInUseError: Every client id of the pool is in use.
        TooManyAccountsError: The login has more accounts than a gateway lists positions of.
    """
    ib_async_internals.quiet_loggers()
    pool = settings.client_id_pool
    random = Random()  # noqa: S311 - jitter of a delay
    for attempts, client_id in enumerate(pool):
        if attempts:
            await sleep(NEXT_CLIENT_ID.delay_s(attempts, random))
        with suppress(ClientIdInUseError):
            return await _log_in_as(client_id, settings, timeout_s or TIMEOUT_S, listeners)
    raise ClientIdInUseError(
        f"The gateway at {settings.gateway_id} has each of the client ids "
        f"{pool[0]} to {pool[-1]} in use (code 326).",
        remedy="End the other program, or set POSITION_SYNC_GATEWAY_CLIENT_ID to a free one; "
        "after a dropped connection the gateway frees an id by itself within a minute or so.",
    )


async def _log_in_as(
    client_id: int, settings: Settings, timeout_s: float, listeners: Iterable[Listener]
) -> Login:
    """Make one attempt to log in; raise an error as soon as it has failed, not at the timeout.

    When the gateway refuses the client id, it sends 326 and closes the socket. ib_async's
    `connectAsync` fails at its timeout then; `errorEvent` comes before. What ib_async does at the
    log-in or later with positions and account summaries is skipped: the account feed has them.
    """
    ib = IB()
    ib_async_internals.set_pace(ib, *MESSAGE_PACE)
    ib_async_internals.read_in_pieces(ib)
    ib_async_internals.skip_positions(ib)
    ib_async_internals.skip_account_summaries(ib)
    for each in listeners:
        ib_async_internals.listen(ib, each)

    listener = _LoginListener(ib, client_id, settings.gateway_address)
    attempt = asyncio.ensure_future(
        ib.connectAsync(
            settings.gateway_host,
            settings.gateway_port,
            clientId=client_id,
            timeout=timeout_s,
            raiseSyncErrors=True,
            fetchFields=StartupFetchNONE,
        )
    )

    try:
        await asyncio.wait({attempt, listener.failure}, return_when=asyncio.FIRST_COMPLETED)
        error = attempt.exception() if attempt.done() else None
        # After its own timeout ib_async closes the socket: that end is not the cause.
        if listener.failure.done() and not ib_async_internals.is_unanswered(error):
            raise listener.failure.result()
        await attempt

    except TimeoutError as error:
        raise GatewayTimeoutError(
            f"{listener.address} accepted the connection and did not answer within "
            f"{timeout_s:g} s.",
            remedy="See whether TWS or IB Gateway waits at a dialog, and whether the port is its "
            "API port.",
        ) from error
    except GatewayError:
        raise  # a refusal is an OSError too
    except (OSError, ValueError) as error:
        raise _failed_to_connect(listener.address, error) from error

    finally:
        attempt.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(attempt, return_exceptions=True)
        # A failure that came with the log-in, such as too many accounts, ends what is connected.
        if not ib.isConnected() or listener.failure.done():
            ib.client.disconnect()
        listener.detach()
    return Login(
        ib=ib, client_id=client_id, settings=settings, connectivity=listener.connectivity,
        timeout_s=timeout_s,
    )  # fmt: skip


class _LoginListener:
    """Recognizes, while a log-in is under way, that it will fail.

    Attributes:
        failure: A future that gets the error.
        connectivity: The state of the gateway's own connections.
    """

    def __init__(self, ib: IB, client_id: int, address: str) -> None:
        self.address = address
        self.failure = asyncio.Future[GatewayError]()
        self.connectivity = Connectivity()
        self._client_id = client_id
        self._client = ib.client
        self._head = bytearray()  # the first bytes that came
        # What `detach` disconnects.
        self._listeners = (
            (ib.errorEvent, self._on_error),
            (ib.client.apiStart, self._on_start),
            (ib_async_internals.bytes_received(ib), self._on_bytes),
            (ib_async_internals.socket_closed(ib), self._on_close),
        )
        for event, listener in self._listeners:
            event.connect(listener)

    def detach(self) -> None:
        """Stop listening: the log-in is over."""
        for event, listener in self._listeners:
            event.disconnect(listener)

    def _fail(self, error: GatewayError) -> None:
        """Set why the log-in fails; the first reason counts, as the others follow from it."""
        if not self.failure.done():
            self.failure.set_result(error)

    def _on_error(self, _request: int, code: int, text: str, _contract: object) -> None:
        """Take an error or notice: the client id may be in use, or IB may be away."""
        if code == GatewayCode.CLIENT_ID_IN_USE:
            message = f"Client id {self._client_id}: {said(code, text)}"
            self._fail(ClientIdInUseError(message, remedy="Use another."))
        self.connectivity.take(code, text)

    def _on_start(self) -> None:
        """Refuse a login of more accounts than lists of positions have; they are known now."""
        accounts = len(self._client.getAccounts())
        if accounts > LISTED_TOGETHER:
            self._fail(
                TooManyAccountsError(
                    f"The login at {self.address} has {accounts} accounts; a gateway lists the "
                    f"positions of up to {LISTED_TOGETHER} (reqPositions).",
                    remedy="Use several logins, each of which sees fewer accounts.",
                )
            )

    def _on_bytes(self, data: bytes) -> None:
        """Look at the first bytes: another protocol has no such length, or no version."""
        # The first message is "version NUL time NUL": a length, then digits.
        head = self._head
        if len(head) >= GREETING_BYTES:
            return

        head += data[: GREETING_BYTES - len(head)]
        version = head[ib_async_internals.LENGTH_BYTES :]
        if ib_async_internals.is_no_length(head) or (version and not version.isdigit()):
            self._fail(
                NotAGatewayError(
                    f"What listens at {self.address} is not an IB gateway.",
                    remedy="Set POSITION_SYNC_GATEWAY_PORT to the API port of TWS or IB Gateway "
                    "(TWS 7496 live, 7497 paper; Gateway 4001 live, 4002 paper).",
                )
            )

    def _on_close(self, _message: str) -> None:
        """Take the end of the socket for a refusal, unless another reason is known."""
        self._fail(
            GatewayRefusedError(
                f"The gateway at {self.address} closed the connection before it was ready.",
                remedy="Allow this machine under API > Settings > Trusted IPs and see whether the "
                "gateway has logged in; after an update of the gateway, see whether it still "
                f"serves API clients of version {self._client.MaxClientVersion}.",
            )
        )


def _failed_to_connect(address: str, error: OSError | ValueError) -> GatewayError:
    """Return the error for people: of a connection that was there and broke, or of none at all.

    A ValueError is that of an address that is none.
    """
    if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        return GatewayTimeoutError(
            f"The gateway at {address} did not answer the first requests: {error}.",
            remedy="It is tried again. See in TWS or IB Gateway whether it has logged in and shows "
            "the positions; if it is only slow, start it again.",
        )
    return GatewayRefusedError(
        f"Nothing listens at {address} ({error}).",
        remedy="Start TWS or IB Gateway, enable its API (Configure > API > Settings > Enable "
        "ActiveX and Socket Clients), and set POSITION_SYNC_GATEWAY_HOST and "
        "POSITION_SYNC_GATEWAY_PORT to its address (TWS 7496 live, 7497 paper; Gateway "
        "4001 live, 4002 paper).",
    )
