"""Subscribes with aiontfy and curl, publishes through the API, compares. A second
argument is the certificate of a listener that speaks TLS."""

import asyncio
import json
import ssl
import sys
import urllib.request

import aiohttp
from aiontfy import Event, Ntfy
from aiontfy.exceptions import NtfyForbiddenAccessError, NtfyUnauthorizedAuthenticationError

READY = json.loads(sys.argv[1])
API = "http://" + READY["api"]
CA = sys.argv[2] if len(sys.argv) > 2 else None
STREAM = ("https://" if CA else "http://") + READY["stream"]
TOPIC = "alice-7f3a"
PATIENCE = 20


def post(path, body):
    request = urllib.request.Request(
        API + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def publish(text):
    view = post(
        "/v1/messages?wait=10s",
        {
            "to": [{"addresses": [{"kind": "stream", "topic": TOPIC}]}],
            "notification": {
                "title": "Paid",
                "body": text,
                "url": "https://example.com/7",
                "image": "https://example.com/7.png",
                "badge": 3,
            },
            "data": {"order": "7"},
            "overrides": {"stream": {"tags": ["tada"]}},
        },
    )
    (delivery,) = view["deliveries"]["items"]
    assert delivery["state"] == "sent", view
    return delivery["provider_message_id"]


async def refused(session):
    for token, error in [
        ("wrong", NtfyUnauthorizedAuthenticationError),
        (None, NtfyForbiddenAccessError),
    ]:
        try:
            await Ntfy(STREAM, session, token=token).subscribe([TOPIC], print)
        except error:
            print(f"aiontfy: {error.__name__} for token {token}")
        else:
            raise AssertionError(f"token {token} was let in")


async def curl(form, token, *more):
    url = f"{STREAM}/{TOPIC}/{form}"
    trust = ["--cacert", CA] if CA else []
    return await asyncio.create_subprocess_exec(
        "curl", "-sN", *trust, "-u", f":{token}", url, *more, stdout=asyncio.subprocess.PIPE
    )


async def until(process, text):
    while text not in (line := (await process.stdout.readline()).decode()):
        assert line, f"the stream ended before {text!r}"
    return line


async def main():
    token = post("/v1/stream/tokens", {"topic": TOPIC, "ttl": "1h"})["token"]
    events = asyncio.Queue()
    trusted = ssl.create_default_context(cafile=CA) if CA else True
    connector = aiohttp.TCPConnector(ssl=trusted)
    async with aiohttp.ClientSession(connector=connector) as session:
        await refused(session)
        ntfy = Ntfy(STREAM, session, token=token)
        subscribed = asyncio.create_task(ntfy.subscribe([TOPIC], events.put_nowait))
        assert (await events.get()).event is Event.OPEN
        forms = {form: await curl(form, token) for form in ("json", "sse", "raw")}
        await until(forms["json"], '"event":"open"')
        await until(forms["sse"], "event: open")
        await forms["raw"].stdout.readline()
        identity = await asyncio.to_thread(publish, "Order 7")
        while (event := await events.get()).event is not Event.MESSAGE:
            pass
        assert event.id == identity, event
        assert (event.title, event.message, event.tags) == ("Paid", "Order 7", ["tada"]), event
        assert str(event.click) == "https://example.com/7", event
        print("aiontfy:", event)
        line = await until(forms["json"], identity)
        print("curl json:", line.strip())
        assert json.loads(line)["data"] == {"order": "7"}
        assert (await until(forms["sse"], identity)).startswith("data: {")
        assert await until(forms["raw"], "Order 7") == "Order 7\n"
        await until(forms["json"], '"event":"keepalive"')
        poll = await curl("json?poll=1&since=all", token)
        (kept,) = (await poll.communicate())[0].splitlines()
        assert json.loads(kept) == json.loads(line)
        # Pings go out each second: a client that answers them stays.
        await asyncio.sleep(3)
        assert not subscribed.done(), subscribed
        again = await asyncio.to_thread(publish, "Order 8")
        while (event := await events.get()).event is not Event.MESSAGE:
            pass
        assert event.id == again
        async with session.get(f"{STREAM}/upAbCdEf123456?up=1") as answer:
            assert await answer.json() == {"unifiedpush": {"version": 1}}
        async with session.post(f"{STREAM}/upAbCdEf123456?up=1", data=b"\xff\x00") as answer:
            assert (await answer.json())["encoding"] == "base64", answer
        statistics = await ntfy.stats()
        assert statistics.messages == 3, statistics
        print("aiontfy:", statistics)
        subscribed.cancel()
        for process in forms.values():
            process.terminate()
            await process.wait()
    print("stock clients read what was published")


asyncio.run(asyncio.wait_for(main(), PATIENCE))
