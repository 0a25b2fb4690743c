"""The page `/money/results`: its panels. The browser fills them from `/api/v1`."""

from position_sync_dagster.web.page import PageFrame, Panel

# As `Grouping` has them, with the one first that the page begins with.
GROUPINGS = ("strategy", "kind", "underlying", "month", "weekday")

_OPTIONS = "".join(f"<option>{name}</option>" for name in GROUPINGS)

_CHOICE = f"""
<label>by <select id="by">{_OPTIONS}</select></label>
<label>closed since <input id="since" type="date"></label>
<label hidden>currency <select id="currency"></select></label>
"""

_CALENDAR = """
<select id="of-day" aria-label="Which profit">
<option value="profit">profit of the day</option><option value="realised">realised</option></select>
<button type="button" id="earlier" aria-label="Month before">◀</button>
<output id="month"></output>
<button type="button" id="later" aria-label="Month after">▶</button>
"""

_CAMPAIGN = """
<dl id="campaign-facts" class="facts"></dl>
<p id="campaign-why" class="remark"></p>
<div id="campaign-chart" class="chart"></div>
<h3>Legs</h3><table id="campaign-legs"></table>
<p id="campaign-rolls" class="lines"></p>
<h3>Fills</h3><table id="campaign-fills"></table>
<p id="campaign-command"></p>
"""

PANELS = (
    Panel(
        name="calendar",
        title="Days",
        tools=_CALENDAR,
        content='<table id="calendar-table" class="calendar" hidden></table>'
        '<p id="calendar-none"></p>',
    ),
    Panel(
        name="day",
        title="Day",
        tools='<button type="button" id="close-day">Close</button>',
        content='<table id="day-trades"></table><h3>Campaigns that ended</h3>'
        '<table id="day-campaigns"></table>',
        is_hidden=True,
    ),
    Panel(
        name="realised",
        title="Realised profit",
        content='<div id="realised-chart" class="chart" hidden></div><p id="realised-none"></p>',
    ),
    Panel(
        name="groups",
        title="Results",
        tools=_CHOICE,
        content='<table id="groups-table"></table><p id="groups-none" role="status"></p>'
        '<p id="groups-command"></p>',
    ),
    Panel(
        name="campaign",
        title="Campaign",
        tools='<button type="button" id="close-campaign">Close</button>',
        content=_CAMPAIGN,
        is_hidden=True,
    ),
    Panel(
        name="campaigns",
        title="Campaigns that are over",
        content='<table id="campaigns-table"></table><p id="campaigns-none"></p>',
    ),
    Panel(
        name="returns",
        title="Returns by month",
        content='<table id="returns-table"></table><p id="returns-none"></p>',
    ),
    Panel(
        name="costs",
        title="What fills cost",
        content='<table id="costs-table"></table><p id="costs-none"></p>',
    ),
)


def results_html() -> str:
    """Return the page, without figures: they come by `/api/v1`."""
    frame = PageFrame(
        title="Results",
        path="/money/results",
        module="results_page",
        styles=("/money/vendor/uplot/uPlot.css",),
    )
    return frame.html("\n".join(panel.html() for panel in PANELS))
