"""An ASGI application without a framework. Every path answers alike; `ms` says how long that takes."""

import asyncio
import json
import os
from urllib.parse import parse_qs


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    received, more = 0, True
    while more:
        message = await receive()
        received += len(message.get("body", b""))
        more = message.get("more_body", False)
    query = parse_qs(scope["query_string"].decode())
    await asyncio.sleep(int(query.get("ms", ["0"])[0]) / 1000)  # the work that a request costs
    headers = dict(scope["headers"])
    body = json.dumps({
        "release": os.environ.get("BATON_RELEASE", "none"), "pid": os.getpid(), "bytes": received,
        "conn": headers.get(b"x-conn", b"").decode(), "seq": headers.get(b"x-seq", b"").decode(),
    }).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})
