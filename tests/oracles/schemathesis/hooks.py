"""What the description cannot say: how lines are written, and which names this
configuration knows. Only what is meant to be valid is changed."""

import json
import re
import uuid

import schemathesis
from schemathesis import GenerationMode

# A valid address of each kind; one of another becomes the second.
ADDRESSES = {
    "apns": {"token": "ab12"},
    "fcm": {"token": "t"},
    "ntfy": {"topic": "t"},
    "gotify": {"app_token": "t"},
    "webhook": {"id": "t"},
    "stream": {"topic": "t"},
}


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    return json.dumps(value).encode() + b"\n"


@schemathesis.deserializer("application/x-ndjson")
def first_line(context, response):
    # No line is answered where none was sent.
    return json.loads((response.content.splitlines() or [b'{"line": 0}'])[0])


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    # A cursor is what a page before has given: a made-up one is refused.
    case.query.pop("cursor", None)
    if "wait" in case.query:
        case.query["wait"] = "1s"
    # The same with an id; without one a message is needed.
    if case.path.endswith("/explain"):
        case.query.pop("delivery", None)
        if not isinstance(case.body, dict):
            case.body = {"to": [{"user": "kept"}], "data": {"a": "b"}}
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if isinstance(case.body, dict) and case.method in ("POST", "PUT"):
        known(case.body, "Idempotency-Key" in case.headers)


def known(body, has_key):
    """Puts names and sizes that are known in the place of those that were made up."""
    for n, recipient in enumerate([body, *body.get("to", [])]):
        if "user" in recipient:
            # Once: a message that names an address a thousand times takes its time.
            recipient.clear()
            recipient.update({"addresses": [address({"kind": "fcm"}, n)]} if n > 1 else {"user": "kept"})
        if "addresses" in recipient:
            recipient["addresses"] = [
                address(one, n) for one in recipient["addresses"]
            ]
    if has_key:
        body.pop("idempotency_key", None)
    elif "idempotency_key" in body:
        body["idempotency_key"] = str(uuid.uuid4())
    if "route" in body:
        body["route"] = "default"
    if "deliver_at" in body:
        body["deliver_at"] = "2026-01-01T00:00:00Z"
    # Vendors have a say in what stands there.
    if "overrides" in body:
        body["overrides"] = {kind: {} for kind in body["overrides"]}
    if "notification" in body:
        body["notification"]["title"] = "t"
    if isinstance(body.get("ttl"), str):
        body["ttl"] = re.sub(r"^\d+", "7", body["ttl"])
    # Bounds in bytes.
    if len(body.get("collapse_key", "").encode()) > 1024:
        body["collapse_key"] = "k" * 1024
    labels = body.get("metadata", {})
    for key in [key for key in labels if len(key.encode()) > 64]:
        del labels[key]
    for key in [key for key in labels if len(labels[key].encode()) > 1024]:
        labels[key] = "v" * 1024


def address(made_up, n):
    kind = made_up["kind"] if made_up["kind"] in ADDRESSES else "fcm"
    kept = {"registered_at": made_up["registered_at"]} if "registered_at" in made_up else {}
    fields = {name: f"{value}{n:04}" for name, value in ADDRESSES[kind].items()}
    return {"kind": kind, **fields, **kept}
