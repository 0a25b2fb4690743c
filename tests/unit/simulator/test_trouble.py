"""An argument of any length and with any characters is a line of text, and no traceback."""

import pytest

from ib_gateway_simulator import program
from ib_gateway_simulator.options import Options


@pytest.mark.parametrize(
    "book", ["x" * 100_000, "x\x1b[2J", "a\nsimulator: forged"], ids=["long", "escape", "lines"]
)
def test_a_book_that_does_not_exist_is_one_short_line(book, capsys):
    assert program.run(book, Options(port=0)) != 0
    told = capsys.readouterr().err
    assert told.startswith("simulator: ")
    assert told.count("\n") == 1
    assert len(told) < 600
    assert told[:-1].isprintable()
