"""A generated book of any size for the simulator, and strategies over a part of it."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import yaml

ACCOUNT = "DUSIM0001"
FIRST_CONID = 920_000_001
STRIKES = 50
EXPIRIES = ("20281215", "20290119", "20290216", "20290316", "20290420")
SYMBOLS = 40
# Contracts of a symbol: with 40 symbols, books of up to 20,000 legs.
PER_SYMBOL = STRIKES * len(EXPIRIES) * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedBook:
    """The files of a book, and the conids of its legs.

    Attributes:
        book: The simulator's book.
        strategies: The strategies file.
        active, monitored: The conids that belong to a strategy, and the others.
    """

    book: Path
    strategies: Path
    active: tuple[int, ...]
    monitored: tuple[int, ...]

    @property
    def legs(self) -> int:
        """The number of holdings."""
        return len(self.active) + len(self.monitored)


def generate(
    folder: Path, legs: int, active: int, account: str = ACCOUNT, *, honest: int | None = None
) -> GeneratedBook:
    """Write a book of `legs` holdings of which `active` belong to strategies of ten legs each.

    Books of several accounts have the same contracts, and strategies of their own.

    Args:
        honest: Spread the legs over so many underlyings, with the prices of the moment, American
            options and volatilities that move; None: few underlyings, with prices of a fixed day.
    """
    underlyings, chains, positions, contracts = [], [], [], []
    most = PER_SYMBOL if honest is None else -(-legs // honest)
    for symbol in range(honest or -(-legs // PER_SYMBOL)):
        name, first = f"SYM{symbol:02}", FIRST_CONID + symbol * PER_SYMBOL
        underlyings.append(
            {"symbol": name, "conid": 910_000_001 + symbol, "price": 125.0, "volatility": 0.25}
        )
        strikes = [100.0 + step for step in range(STRIKES)]
        chains.append(
            {
                "name": name,
                "underlying": name,
                "first_conid": first,
                "expiries": list(EXPIRIES),
                "strikes": strikes,
            }
        )
        of_chain = product(EXPIRIES, strikes, ("CALL", "PUT"))
        for conid, (expiry, strike, right) in enumerate(of_chain, first):
            if len(contracts) == min(legs, (symbol + 1) * most):
                break
            quantity = (1, -1, 2, -3)[conid % 4]
            positions.append({"account": account, "conid": conid, "quantity": quantity})
            contracts.append(
                {
                    "conid": conid,
                    "symbol": name,
                    "right": right,
                    "strike": strike,
                    "expiry": expiry,
                    "account": account,
                }
            )
    chosen = contracts[:: max(1, legs // active)][:active]
    strategies = [
        {"strategy_id": f"{account}-{first // 10:04}", "legs": chosen[first : first + 10]}
        for first in range(0, len(chosen), 10)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    book, strategies_file = folder / "book.yaml", folder / "strategies.yaml"
    _write(
        book,
        {
            "name": f"generated-{legs}",
            **({"as_of": "2026-03-04"} if honest is None else {"option_market": {}}),
            "accounts": [{"name": account, "cash": 1_000_000.0}],
            "underlyings": underlyings,
            "chains": chains,
            "positions": positions,
        },
    )
    _write(strategies_file, {"strategies": strategies})
    wanted = {contract["conid"] for contract in chosen}
    return GeneratedBook(
        book=book,
        strategies=strategies_file,
        active=tuple(sorted(wanted)),
        monitored=tuple(c["conid"] for c in contracts if c["conid"] not in wanted),
    )


def _write(path: Path, content: object) -> None:
    path.write_text(yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False))
