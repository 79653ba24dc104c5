"""A WSGI application without a framework. Every path answers alike; `ms` says how long that takes."""

import json
import os
import time
from urllib.parse import parse_qs


def app(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"])
    received = len(environ["wsgi.input"].read())
    time.sleep(int(query.get("ms", ["0"])[0]) / 1000)  # the work that a request costs
    body = json.dumps({
        "release": os.environ.get("BATON_RELEASE", "none"), "pid": os.getpid(), "bytes": received,
        "conn": environ.get("HTTP_X_CONN"), "seq": environ.get("HTTP_X_SEQ"),
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
