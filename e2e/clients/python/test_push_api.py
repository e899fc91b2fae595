"""Real answers of the push API against the schemas of its own OpenAPI document, by a validator that is not ours."""

import http.client
import json
import os
import pathlib
import time
import urllib.parse

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from device import PATIENCE

FILE = pathlib.Path(__file__).parents[3] / "docs" / "push-api.openapi.json"
# Its name for the validator.
DOCUMENT = "urn:push-api"

# Only `dev` and a bridge have it; another broker is judged without.
pytestmark = pytest.mark.skipif("E2E_ADMIN" not in os.environ, reason="E2E_ADMIN=host:port names the push API")


def ask(method, path, body=None, content_type="application/json"):
    """Asks, and gives status, content type and text of the answer."""
    connection = http.client.HTTPConnection(os.environ["E2E_ADMIN"], timeout=PATIENCE)
    try:
        body = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, body, {"content-type": content_type} if body is not None else {})
        answer = connection.getresponse()
        return answer.status, answer.headers.get_content_type(), answer.read().decode()
    finally:
        connection.close()


class Api:
    """The document, and answers that were found to be as it says."""

    def __init__(self):
        status, _, text = ask("GET", "/v1/openapi.json")
        assert status == 200
        self.document = json.loads(text)
        self.registry = Registry().with_resource(DOCUMENT, DRAFT202012.create_resource(self.document))

    def validator(self, *pointer):
        steps = "/".join(step.replace("~", "~0").replace("/", "~1") for step in pointer)
        return Draft202012Validator({"$ref": f"{DOCUMENT}#/{steps}"}, registry=self.registry)

    def ask(self, method, path, route=None, body=None, content_type="application/json"):
        """Gives status and content of an answer, or of each of its lines; all of it must be as the document says."""
        where = ("paths", route or path.split("?")[0], method.lower())
        status, kind, text = ask(method, path, body, content_type)
        responses = self.document["paths"][where[1]][where[2]]["responses"]
        assert str(status) in responses, f"{status} is not in the document: {text}"
        if status == 204:
            assert text == "" and "content" not in responses["204"]
            return status, None
        content = responses[str(status)]["content"]
        assert kind in content, f"{kind} is not in the document: {text}"
        validator = self.validator(*where, "responses", str(status), "content", kind, "schema")
        lines = [json.loads(line) for line in text.splitlines()] if "ndjson" in kind else [json.loads(text)]
        for line in lines:
            if "members" in line and "ndjson" in kind:
                self.validator("components", "schemas", "Answer").validate(line)
            else:
                validator.validate(line)
        return status, lines if "ndjson" in kind else lines[0]

    def push(self, **fields):
        assert self.takes(fields), f"the document does not allow {fields}"
        return self.ask("POST", "/v1/push", body=fields)

    def takes(self, fields):
        content = ("requestBody", "content", "application/json", "schema")
        return self.validator("paths", "/v1/push", "post", *content).is_valid(fields)


@pytest.fixture(scope="module")
def api():
    return Api()


def test_the_document_is_valid_and_the_one_in_the_docs(api):
    validate(api.document)
    assert api.document == json.loads(FILE.read_text(encoding="utf-8"))


def test_outcomes_of_pushes_are_as_documented(api, device, name):
    here = device(f"{name}-here")
    here.subscribe(f"devices/{name}-here/push", 1)
    away = device(f"{name}-away", expiry_s=3600, clean=False)
    away.subscribe(f"devices/{name}-away/push", 1)
    away.leave()
    device(f"{name}-deaf")
    status, answer = api.push(device=f"{name}-here", payload={"a": 1}, id=name)
    assert (status, answer) == (200, {"id": name, "outcome": "delivered"})
    assert here.receive().payload == b'{"a": 1}'
    status, answer = api.push(device=f"{name}-away", payload="x")
    assert (status, answer["outcome"]) == (202, "queued")
    status, answer = api.push(topic=f"{name}/news", payload="x", retain=True)
    assert (status, answer["outcome"]) == (202, "accepted")
    assert api.push(device=f"{name}-nobody", payload=None)[1]["reason"] == "no_such_session"
    assert api.push(device=f"{name}-deaf", payload="x")[1]["reason"] == "not_subscribed"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_push_is_delivered_with_its_qos_and_content_type(api, device, name, qos):
    here = device(name)
    for topic in (f"devices/{name}/push", f"{name}/news"):
        here.subscribe(topic, 2)
    for target in ({"device": name}, {"topic": f"{name}/news"}):
        fields = {"payload_base64": "AP8=", "qos": qos, "content_type": "application/x-ü"}
        outcome = api.push(**target, **fields)[1]["outcome"]
        assert outcome == ("delivered" if "device" in target else "accepted")
        message = here.receive()
        assert (message.payload, message.qos, message.retain) == (b"\x00\xff", qos, False)
        assert message.properties.ContentType == "application/x-ü"
        assert message.topic == (f"devices/{name}/push" if "device" in target else f"{name}/news")


def test_a_batch_answers_line_by_line_as_documented(api, name):
    pushes = [
        {"device": f"{name}-nobody", "payload": 1},
        {"topic": f"{name}/news", "payload_base64": "AP8=", "id": name},
        {"device": "d", "payload": 1, "qos": 7},
    ]
    body = "\n".join(json.dumps(push) for push in pushes).encode()
    status, lines = api.ask("POST", "/v1/push/batch", body=body, content_type="application/x-ndjson")
    assert (status, len(lines)) == (200, 4)
    assert {line["line"] for line in lines[:3]} == {1, 2, 3}
    assert lines[3]["end"] and (lines[3]["pushes"], lines[3]["problems"]) == (2, 1)


def test_devices_answer_as_documented(api, device, name):
    every, one = "/v1/devices", "/v1/devices/{client_id}"
    here = device(f"{name}/here ü")
    here.subscribe("commands/#", 1)
    path = f"{every}/{urllib.parse.quote(f'{name}/here ü', safe='')}"
    status, answer = api.ask("GET", path, one)
    assert (status, answer["connected"], answer["subscriptions"]) == (200, True, [{"filter": "commands/#", "qos": 1}])
    away = device(f"{name}-away", expiry_s=3600, clean=False)
    away.leave()
    deadline = time.monotonic() + PATIENCE
    while api.ask("GET", f"{every}/{name}-away", one)[1]["connected"]:
        assert time.monotonic() < deadline, "it is away"
    status, answer = api.ask("POST", every, body={"find": f"{name}-away"})
    assert (status, answer["node"], answer["persistent"], answer["pending"]) == (200, None, True, 0)
    assert answer["rests_until_ms"] - answer["since_ms"] == pytest.approx(3_600_000, abs=5_000)
    found, page = set(), ""
    while page is not None:
        _, answer = api.ask("GET", f"{every}?limit=2&connected=false{page and f'&page={page}'}")
        found.update(entry["client_id"] for entry in answer["devices"])
        page = answer["next"]
    assert f"{name}-away" in found and f"{name}/here ü" not in found
    assert api.ask("DELETE", path, one) == (204, None)
    assert api.ask("DELETE", f"{every}/{name}-nobody", one)[0] == 404
    assert api.ask("POST", every, body={"disconnect": f"{name}-nobody"})[0] == 404
    assert api.ask("GET", f"{every}/{name}-nobody", one)[0] == 404
    assert api.ask("GET", f"{every}/%ff", one)[0] == 400
    assert api.ask("GET", f"{every}?limit=0")[0] == 400


def test_groups_answer_as_documented(api, device, name):
    group, members = "/v1/groups/{group}", "/v1/groups/{group}/members"
    path = f"/v1/groups/{name}/members"
    listening = device(f"{name}-1")
    listening.subscribe(f"devices/{name}-1/push", 1)
    clients = [f"{name}-{number}" for number in range(5)]
    assert api.ask("PUT", path, members, clients)[1]["added"] == 5
    assert api.ask("PUT", path, members, b"x y\nz\n", "text/plain")[1]["added"] == 2
    assert api.ask("DELETE", path, members, b'"z"', "application/x-ndjson")[1]["removed"] == 1
    _, page = api.ask("GET", f"{path}?limit=3", members)
    _, rest = api.ask("GET", f"{path}?limit=1000&page={page['next']}", members)
    assert rest["next"] is None
    assert sorted(page["members"] + rest["members"]) == sorted([*clients, "x y"])
    push = {"group": name, "payload": "x", "ttl_s": 60, "collapse_key": "k", "id": name}
    status, answer = api.push(**push)
    assert (status, answer["members"], answer["outcomes"]["delivered"]) == (200, 6, 1)
    _, lines = api.ask("POST", "/v1/push?results=stream", body={**push, "id": f"{name}-2"})
    assert len(lines) == 7 and lines[6]["outcome"] == "done"
    assert api.ask("DELETE", f"/v1/groups/{name}", group) == (204, None)
    assert api.push(group=name, payload="x")[1]["reason"] == "no_such_group"


def test_problems_are_as_documented(api, name):
    first = {"device": name, "payload": 1, "id": name}
    api.push(**first)
    for status, problem, body, content_type in [
        (400, "malformed", b"{", "application/json"),
        (400, "invalid", b'{"device":"d"}', "application/json"),
        (413, "too-large", b" " * (2 << 20) + b"{}", "application/json"),
        (415, "unsupported-media-type", b"<push/>", "text/xml"),
        (422, "id-reused", json.dumps({**first, "payload": 2}).encode(), "application/json"),
    ]:
        answered, answer = api.ask("POST", "/v1/push", body=body, content_type=content_type)
        assert (answered, answer["type"]) == (status, f"/v1/problems/{problem}")
        assert ask("GET", answer["type"])[0] == 200
    for path in ["/v1/groups/a b/members".replace(" ", "%20"), "/v1/groups/g/members?limit=0"]:
        assert api.ask("GET", path, "/v1/groups/{group}/members")[0] == 400
    for method, path, status in [("PUT", "/v1/push", 405), ("GET", "/v1/pushes", 404)]:
        answered, kind, _ = ask(method, path)
        assert (answered, kind) == (status, "application/problem+json")


def test_the_document_tells_good_requests_from_bad_ones(api):
    good = {"device": "d", "payload": None, "qos": 2, "ttl_s": 1, "content_type": "x", "id": "i", "wait_ms": 0}
    assert api.takes(good)
    for change in [
        {"payload_base64": ""},
        {"group": "g"},
        {"qos": 3},
        {"ttl_s": 0},
        {"ttl": 1},
        {"id": ""},
        {"device": ""},
        {"collapse_key": "k" * 257},
    ]:
        assert not api.takes(good | change), change
        assert api.ask("POST", "/v1/push", body=good | change)[0] == 400, change
    assert not api.takes({"payload": 1}) and not api.takes({"device": "d"})
