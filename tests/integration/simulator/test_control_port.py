"""The control port takes requests of programs, and none of a web page."""

import pytest

HOLDING = {"account": "DUSIM0001", "conid": 921000001, "position": 7}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "pages.example"}, 400),
        ({"Origin": "http://pages.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": ""}, 415),
    ],
)
async def test_what_a_web_page_can_send_changes_nothing(sim, http, headers, status):
    before = sim.positions()
    answer = await http.post("/holding", json=HOLDING, headers=headers)
    assert answer.status_code == status
    assert sim.positions() == before
    if status != 415:
        assert (await http.get("/stats", headers=headers)).status_code == status
    json = {"Content-Type": "application/json; charset=utf-8"}
    assert (await http.post("/holding", json=HOLDING, headers=json)).status_code == 200


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"a":' * 100_000, '{"conid": ' + "9" * 5000 + "}", "{", "[]"]
)
async def test_a_body_that_is_no_json_object_is_refused(http, body):
    headers = {"Content-Type": "application/json"}
    answer = await http.post("/holding", content=body, headers=headers)
    assert answer.status_code == 400
    assert len(answer.text) < 400
