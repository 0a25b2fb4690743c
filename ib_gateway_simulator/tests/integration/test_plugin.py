"""The pytest plugin, used by a pytest of its own, as in another project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples/gateway_simulator"

HEAD = """
import pytest
from ib_async import IB, MarketOrder, Stock
"""

ORDER = """
async def test_an_order(ib_gateway):
    ib = IB()
    await ib.connectAsync("127.0.0.1", ib_gateway.port, clientId=1)
    ib.placeOrder(Stock("AAPL", "SMART", "USD"), MarketOrder("BUY", 1))
    ib.disconnect()
"""

UNRECORDED = f"""
@pytest.mark.ib_recording({str(EXAMPLES / "session.ibrec")!r})
async def test_an_unknown_request(ib_gateway):
    ib = IB()
    await ib.connectAsync("127.0.0.1", ib_gateway.port, clientId=1)
    await ib.reqContractDetailsAsync(Stock("TSLA", "SMART", "USD"))
    ib.disconnect()
"""

BOOK = f"""
@pytest.mark.ib_book({(EXAMPLES / "book.yaml").read_text()!r})
def test_a_book_in_the_test(ib_gateway):
    ib = IB()
    ib.connect("127.0.0.1", ib_gateway.port, clientId=1)
    assert ib.managedAccounts() == ["DUSIM0001"]
    ib.disconnect()


@pytest.mark.ib_book("missing.yaml")
def test_a_book_that_is_missing(ib_gateway):
    pass


def test_an_action_that_does_not_exist(ib_gateway):
    with pytest.raises(AttributeError, match="there is no action 'explode'"):
        ib_gateway.explode()
    with pytest.raises(Exception, match="conid: Field required"):
        ib_gateway.expire(account="DUSIM0001")
    with pytest.raises(Exception, match="'x' is no code of IB"):
        ib_gateway.fault("x")
"""


def run_pytest(folder: Path) -> tuple[int, str]:
    """Run the tests of a folder with the plugin, without this project's settings."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command: list[str | Path] = [sys.executable, "-m", "pytest"]
    command += ["-c", "/dev/null", "--rootdir", folder, "-p", "no:cacheprovider"]
    command += ["-p", "no:schemathesis"]  # of this project alone, and slow to import
    command += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(
        [*command, folder],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_run_of_pytest_that_asks_for_no_gateway_imports_no_server():
    code = "import sys, ib_gateway_simulator.pytest_plugin as _; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    ours = {name for name in done.stdout.split() if name.startswith("ib_gateway_simulator")}
    assert ours == {"ib_gateway_simulator", "ib_gateway_simulator.pytest_plugin"}
    assert {"pydantic", "starlette", "uvicorn"}.isdisjoint(done.stdout.split())


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    """Return what pytest says of the examples and the tests that are written here."""
    folder = tmp_path_factory.mktemp("written")
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    readme = (ROOT / "ib_gateway_simulator/README.md").read_text()
    first_test = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    written = {"readme": first_test, "order": ORDER, "unrecorded": UNRECORDED, "book": BOOK}
    for name, text in written.items():
        (folder / f"test_{name}.py").write_text(HEAD + text)
    code, output = run_pytest(folder)
    assert code == 1, output
    return output


def test_the_examples_pass(output):
    passed = re.findall(r"^examples/test_\w+\.py (\.+) ", output, re.MULTILINE)
    assert len("".join(passed)) == 6, output


def test_the_first_test_of_the_readme_passes(output):
    assert re.search(r"^test_readme\.py \.+ ", output, re.MULTILINE), output


def test_a_test_in_which_an_order_was_sent_fails_and_names_the_order(output):
    assert "FAILED test_order.py::test_an_order" in output
    assert "An order was sent. client 1 sent placeOrder: 3, " in output
    assert "AAPL, STK" in output


def test_a_request_that_a_recording_does_not_have_fails_with_the_nearest_that_it_has(output):
    assert "FAILED test_unrecorded.py::test_an_unknown_request" in output
    assert "no answer to reqContractDetails(symbol=TSLA, sec_type=STK, exchange=SMART)" in output
    assert "the nearest that it has is reqContractDetails(conid=921000001" in output


def test_a_book_is_text_or_a_file_and_a_wrong_action_is_refused_by_name(output):
    assert re.search(r"^test_book\.py \.E\. ", output, re.MULTILINE), output
    assert "missing.yaml: cannot be read" in output
