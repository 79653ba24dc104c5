"""A Flask application. The parameter `ms` says how long that takes."""

import os
import time

from flask import Flask, request

app = Flask(__name__)


@app.route("/health")
def health():
    return "healthy"


@app.route("/", methods=["GET"])
@app.route("/slow")
@app.route("/stream")
@app.route("/upload", methods=["POST"])
def work():
    received = len(request.get_data())
    time.sleep(request.args.get("ms", 0, type=int) / 1000)  # the work that a request costs
    return {
        "release": os.environ.get("BATON_RELEASE", "none"), "pid": os.getpid(), "bytes": received,
        "conn": request.headers.get("X-Conn"), "seq": request.headers.get("X-Seq"),
    }
