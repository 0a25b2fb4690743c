"""Faults of the account feed."""

from __future__ import annotations

from position_sync_dagster.simulator.control.readings import Readings
from position_sync_dagster.simulator.errors import ActionError


class AccountFaults(Readings):
    """Changes what one gateway answers about accounts."""

    def silence_account(self, account: str, notice: bool = True) -> int:
        """End the feed of an account, and return how many clients had it.

        The clients get 2100, or with `notice` false not a word; in both cases no values, portfolio
        rows and times follow, and a new request works. 2100 is recorded by ibkr-go (pnl_single)
        and means that the client has no account data any more (IB, "System Message Codes"). A
        feed that ends as if it had been unsubscribed, without a notice, is reported in IbPy
        issues/12.
        """
        self._check_account(account)
        ended = self._gateway.accounts.updates.end_account(account, notice=notice)
        self._gateway.flush()
        return ended

    def _check_account(self, account: str) -> None:
        if account not in self._gateway.ledger.accounts:
            raise ActionError("account", f"there is no account {account!r} on this login")
