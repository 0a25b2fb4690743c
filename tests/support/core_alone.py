"""A plugin of pytest: money cannot be imported, so that what passes needs the core alone."""

import sys
from importlib.abc import MetaPathFinder

MONEY = "position_sync_dagster.money"


class _Refusal(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == MONEY or fullname.startswith(f"{MONEY}."):
            raise ModuleNotFoundError(f"{fullname}: the core is tested alone.", name=fullname)


sys.meta_path.insert(0, _Refusal())
