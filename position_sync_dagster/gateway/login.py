"""One attempt to log in at a gateway, with the errors that say what is there instead."""

import asyncio
from contextlib import suppress

from ib_async import IB, StartupFetchNONE

from position_sync_dagster.errors import (
    ClientIdInUseError,
    GatewayError,
    GatewayRefusedError,
    GatewayTimeoutError,
    NotAGatewayError,
)
from position_sync_dagster.gateway.codes import OFFLINE, GatewayCode
from position_sync_dagster.settings import Settings

MAX_REQUESTS, REQUESTS_INTERVAL_S = 10, 0.25
"""Pace of our messages: never more than 50 in any second, as the gateway counts them. ib_async's
own 45 per second come in bursts, of which two may fall into one second at the gateway."""

MAX_FRAME = 1 << 20
"""No message that we ask for comes near it (1 MiB; contract details take some 2 KB). A length
prefix that is text, because something before it was lost, is greater: its first bytes are not 0."""


async def log_in(client_id: int, settings: Settings, port: int) -> tuple[IB, str | None]:
    """Connect once; 326 and a foreign protocol show at once instead of at the timeout.

    Gives also what the gateway says when it is itself without IB.

    ib_async's `connectAsync` fails at its timeout alone when the gateway refuses the client id
    (it sends 326 and closes); `errorEvent` hears it before.
    """
    where = f"{settings.gateway_host}:{port}"
    ib = IB()
    ib.client.MaxRequests = MAX_REQUESTS
    ib.client.RequestsInterval = REQUESTS_INTERVAL_S  # type: ignore[assignment] # any seconds do
    trouble: asyncio.Future[GatewayError] = asyncio.get_running_loop().create_future()

    def report(error: GatewayError) -> None:
        if not trouble.done():
            trouble.set_result(error)

    heard = bytearray()
    offline: list[str] = []

    def on_error(_request: int, code: int, text: str, _contract: object) -> None:
        if code == GatewayCode.CLIENT_ID_IN_USE:
            report(ClientIdInUseError(f"Client id {client_id}: {text}", remedy="Use another."))
        elif code in OFFLINE:
            offline.append(text)

    def on_data(data: bytes) -> None:
        # The first frame is "version NUL time NUL": a length, then digits.
        if len(heard) > 4:
            return
        heard.extend(data[:5])
        too_long = len(heard) >= 4 and int.from_bytes(heard[:4], "big") > MAX_FRAME
        if too_long or (len(heard) > 4 and not heard[4:5].isdigit()):
            report(_not_a_gateway(where))

    def on_end(_message: str) -> None:
        report(
            GatewayRefusedError(
                f"The gateway at {where} closed the connection before it was ready.",
                remedy="Allow this machine under API > Settings > Trusted IPs and see whether the "
                "gateway has logged in.",
            )
        )

    ib.errorEvent += on_error
    ib.client.conn.hasData += on_data
    ib.client.conn.disconnected += on_end
    attempt = asyncio.ensure_future(
        ib.connectAsync(
            settings.gateway_host,
            port,
            clientId=client_id,
            timeout=settings.gateway_timeout_s,
            raiseSyncErrors=True,
            fetchFields=StartupFetchNONE,
        )
    )
    try:
        await asyncio.wait({attempt, trouble}, return_when=asyncio.FIRST_COMPLETED)
        timed_out = attempt.done() and isinstance(attempt.exception(), TimeoutError)
        if trouble.done() and not timed_out:
            raise trouble.result()
        await attempt
    except TimeoutError as error:
        raise GatewayTimeoutError(
            f"{where} accepted the connection and did not answer within "
            f"{settings.gateway_timeout_s:g} s.",
            remedy="See whether TWS or IB Gateway waits at a dialog, and whether the port is its "
            "API port.",
        ) from error
    except (OSError, ValueError) as error:
        if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
            raise GatewayTimeoutError(
                f"The gateway at {where} dropped the first requests: {error}.",
                remedy="Wait for it to finish its log-in; it is tried again.",
            ) from error
        raise GatewayRefusedError(
            f"Nothing listens at {where} ({error}).",
            remedy="Start TWS or IB Gateway, enable its API (Configure > API > Settings > Enable "
            "ActiveX and Socket Clients), and set POSITION_SYNC_GATEWAY_HOST and "
            "POSITION_SYNC_GATEWAY_PORT to its address (TWS 7496 live, 7497 paper; Gateway "
            "4001 live, 4002 paper).",
        ) from error
    finally:
        if not attempt.done():
            attempt.cancel()
        with suppress(BaseException):
            await asyncio.gather(attempt, return_exceptions=True)
        if not ib.isConnected() or trouble.done():
            ib.client.disconnect()
        ib.client.conn.hasData -= on_data
        ib.client.conn.disconnected -= on_end
        ib.errorEvent -= on_error
    return ib, next(iter(offline), None)


def _not_a_gateway(where: str) -> NotAGatewayError:
    return NotAGatewayError(
        f"What listens at {where} is not an IB gateway.",
        remedy="Set POSITION_SYNC_GATEWAY_PORT to the API port of TWS or IB Gateway (TWS 7496 "
        "live, 7497 paper; Gateway 4001 live, 4002 paper).",
    )
