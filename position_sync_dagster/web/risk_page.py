"""The page `/money/risk`: its panels. The browser fills them from `/api/v1`."""

from html import escape

from position_sync_dagster.money.risk.proposed_trade import EXAMPLE
from position_sync_dagster.web.page import PageFrame, Panel

_CHOICE = """
<label>Of <select id="scope"><option value="">Everything</option></select></label>
<label>Day <input id="days" type="range" min="0" max="60" step="1" value="0"></label>
<label>Volatility <input id="vol" type="range" min="-20" max="30" step="1" value="0"></label>
<output id="chosen-day" for="days vol"></output>
<span id="computed" class="dim"></span>
"""

_TRADES = f"""
<form id="trades-form">
<label class="wide">Trades, one a line
<textarea id="trade" rows="2" spellcheck="false" placeholder="{escape(EXAMPLE)}"></textarea></label>
<label>Close <select id="close"></select></label>
<label>Roll <select id="roll"></select></label>
<label>to <input id="roll-expiry" type="date"></label>
<button>Show before and after</button> <button type="reset">Without it</button>
</form>
<p id="trades-notes" class="lines" role="status"></p>
<table id="compared" hidden></table>
<p id="trades-command" hidden></p>
<p class="dim">Nothing is sent and nothing is stored. Margins after a trade are not known.</p>
"""

PANELS = (
    Panel(
        name="payoff",
        title="Profit over the price",
        tools=_CHOICE,
        content='<div id="payoffs"></div><p id="payoff-none" role="status"></p>'
        '<p id="payoff-command"></p>',
    ),
    Panel(
        name="matrix",
        title="Change of the profit by price and volatility",
        content='<div id="matrices"></div><p id="matrix-none"></p>',
    ),
    Panel(name="what-if", title="What if I do this", content=_TRADES),
    Panel(
        name="greeks",
        title="Greeks over the price",
        tools='<select id="greek" aria-label="Which greek"></select>',
        content='<div id="greek-charts"></div>',
    ),
    Panel(
        name="assignments",
        title="Expires, and may be assigned",
        content='<p id="ending-none"></p><table id="ending"></table><p id="early-none"></p>'
        '<table id="early"></table><table id="not-judged"></table>',
    ),
    Panel(
        name="recorded",
        title="If prices moved",
        content='<table id="recorded-table"></table><p id="recorded-left" class="lines"></p>',
    ),
    Panel(
        name="explained",
        title="Where the profit of the day came from",
        content='<table id="explained-table"></table>',
    ),
    Panel(name="books", title="The books of the day", content='<table id="books-table"></table>'),
)


def risk_html() -> str:
    """Return the page, without figures: they come by `/api/v1`."""
    frame = PageFrame(
        title="Risk",
        path="/money/risk",
        module="risk_page",
        styles=("/money/vendor/uplot/uPlot.css",),
    )
    return frame.html("\n".join(panel.html() for panel in PANELS))
