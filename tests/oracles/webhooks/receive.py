"""A receiver as the users of Standard Webhooks write it, and a router that posts to it:
pushes of a `webhook` provider (signed by two secrets), a client's events, operators'
events. What is genuine must verify, and what was touched must not."""

import base64
import json
import queue
import secrets
import subprocess
import sys
import threading
import urllib.request
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

PUSHYARD, WORK = sys.argv[1], Path(sys.argv[2])
PATIENCE = 20
KEY = "shop-key-0123456789abcdef"
posts = {path: queue.Queue() for path in ("/push", "/shop", "/operators")}


def secret():
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        posts[self.path].put((body, headers))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def refused(why, key, body, headers):
    try:
        Webhook(key).verify(body, headers)
    except WebhookVerificationError as error:
        print(f"  refused, {why}: {error}")
    else:
        raise AssertionError(f"{why} was taken")


def check(path, keys, wrong):
    """Verifies the next post with each key, and not when anything of it is changed."""
    body, headers = posts[path].get(timeout=PATIENCE)
    for key in keys:
        assert Webhook(key).verify(body, headers) == json.loads(body)
    print(f"{path}: verified with {len(keys)} key(s)")
    (key, *_) = keys
    refused("another key", wrong, body, headers)
    refused("another body", key, body.replace(b'"', b'" ', 1), headers)
    refused("another id", key, body, headers | {"webhook-id": "other"})
    for minutes in (-6, 6):
        at = datetime.now(timezone.utc) + timedelta(minutes=minutes)
        moved = headers | {"webhook-timestamp": str(int(at.timestamp()))}
        refused(f"{minutes} min in its timestamp", key, body, moved)
        # Signed as of then by its owner: only the age is wrong.
        moved["webhook-signature"] = Webhook(key).sign(headers["webhook-id"], at, body.decode())
        refused(f"{minutes} min old, signed", key, body, moved)
    return json.loads(body), headers


def configure(port, hook, shop, operators):
    listed = ", ".join(f'"{one}"' for one in hook)
    (WORK / "pushyard.toml").write_text(f"""
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
events = {{ url = "http://127.0.0.1:{port}/operators", secret = "{operators}", types = ["operator"] }}
[[clients]]
name = "shop"
key = "{KEY}"
admin = true
events = {{ url = "http://127.0.0.1:{port}/shop", secret = "{shop}" }}
[[providers]]
id = "hook"
kind = "webhook"
endpoint = "http://127.0.0.1:{port}/push"
secret = [{listed}]
""")


def post(url, body):
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    old, new, shop, operators = (secret() for _ in range(4))
    configure(server.server_port, [new, old], shop, operators)
    with open(WORK / "log", "w") as log:
        router = subprocess.Popen(
            [PUSHYARD, "serve", "--config", WORK / "pushyard.toml"],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )
    try:
        line = router.stdout.readline()
        assert line.startswith("listening "), (WORK / "log").read_text()
        ready = json.loads(line.removeprefix("listening "))
        api, admin = f"http://{ready['api']}", f"http://{ready['admin']}"
        message = {
            "to": [{"ref": "alice-phone", "addresses": [{"kind": "webhook", "id": "alice"}]}],
            # Bytes that a receiver which parses and writes JSON anew would change.
            "notification": {"title": "Bezahlt \u2013 7 \u20ac", "body": "1.50 / <b> \U0001f4e6"},
        }
        view = post(f"{api}/v1/messages?wait=10s", message)
        (delivery,) = view["deliveries"]["items"]
        assert delivery["state"] == "sent", view
        body, headers = check("/push", [new, old], shop)
        assert headers["webhook-id"] == delivery["id"], headers
        assert body["data"]["notification"]["title"] == message["notification"]["title"]
        event, _ = check("/shop", [shop], old)
        assert event["type"] == "delivery.sent", event
        assert event["data"]["delivery"] == delivery["id"], event

        # The old key is taken out: what it signed verifies no more.
        configure(server.server_port, [new], shop, operators)
        changed = post(f"{admin}/admin/v1/reload", {})["changed"]
        assert changed == ["providers.hook"], changed
        post(f"{api}/v1/messages?wait=10s", message)
        body, headers = posts["/push"].get(timeout=PATIENCE)
        Webhook(new).verify(body, headers)
        refused("a key that was taken out", old, body, headers)

        post(f"{admin}/admin/v1/providers/hook/drain", {"reason": "oracle"})
        event, _ = check("/operators", [operators], shop)
        assert event["type"] == "operator", event
    finally:
        router.terminate()
        router.wait(timeout=40)
    print("genuine posts verify, and no others")


main()
