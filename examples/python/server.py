"""A web server on the standard library that can be replaced without losing a request.

What matters for that, and what any server would do the same way:

- it takes its listening socket from LISTEN_FDS (systemd's protocol), and only without one binds $SOCKET (a path)
  or $PORT;
- on SIGTERM it stops accepting, finishes what it has accepted, tells keep-alive clients to go
  (`Connection: close`), and exits with 0;
- it never shuts the listening socket down: others hold it too.

`http.server` would do, but importing it doubles the start-up time, and it cannot wait for the next request
and for the stop at once.
"""

import json
import os
import select
import signal
import socket
import sys
import threading
import time

STARTED = time.monotonic()

# The first descriptor that systemd's protocol passes.
LISTEN_FDS_START = 3
# Longer than clients usually pool connections, so that it is the client that closes idle ones.
KEEP_ALIVE_S = 75
# After the stop, an idle connection may send one more request for this long. A request that is already on its
# way is then answered instead of being met by a closed connection.
LAST_REQUEST_S = 1
# The same for a connection that has not sent its first request yet: its client has every right to.
FIRST_REQUEST_S = 5
# How long a client that was told to go may take to close.
CLOSE_S = 1
HEAD_BYTES_MAX = 64 * 1024
RECEIVE_BYTES = 64 * 1024
# Connections taken from the queue after the stop: what a full default queue holds. Without a bound, a socket
# that another process serves too could keep this one for ever.
LAST_ACCEPTS_MAX = 4096

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
           411: "Length Required", 503: "Service Unavailable"}


def read_behaviour():
    """Switches for bad behaviour: words in $BEHAVIOUR and lines of the file `behaviour` beside this one."""
    words = os.environ.get("BEHAVIOUR", "").split()
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "behaviour")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            words += file.read().split()
    known = {"never-healthy", "crash-after", "ignore-term", "exit-at-start", "slow-start"}
    switches = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            sys.exit(f"unknown behaviour {word!r}: use one of {', '.join(sorted(known))}")
        switches[name] = value
    return switches


BEHAVIOUR = read_behaviour()


class Stop:
    """The wish to end, as something that any number of threads can poll for together with a socket."""

    def __init__(self):
        self.fd, self._hold = os.pipe()
        self.requested = False

    def request(self):
        """Wakes everyone who polls `fd`: its other end is gone."""
        self.requested = True
        os.close(self._hold)


STOP = Stop()


def readable(fds, seconds=None):
    """Waits until some of the descriptors can be read (or have ended), and returns them; none after this time."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}


class Connection:
    """One client's connection, in a thread of its own."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""
        self.answered = 0

    def run(self):
        with self.sock:
            try:
                # Accepted sockets must block, whatever the listener is set to.
                self.sock.setblocking(True)
                if self.sock.family != socket.AF_UNIX:
                    self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while self.request_comes() and self.answer_one():
                    self.answered += 1
                self.part()
            except OSError:
                pass  # the client has gone; there is nobody left to tell

    def request_comes(self):
        """Waits for the next request. False when there will be none."""
        if self.buffer:
            return True
        sock = self.sock.fileno()
        ready = readable([sock, STOP.fd], KEEP_ALIVE_S)
        if sock not in ready and STOP.requested:
            ready = readable([sock], LAST_REQUEST_S if self.answered else FIRST_REQUEST_S)
        return sock in ready

    def receive(self):
        chunk = self.sock.recv(RECEIVE_BYTES)
        self.buffer += chunk
        return bool(chunk)

    def answer_one(self):
        """Reads one request and answers it. True when another one may follow on this connection."""
        while b"\r\n\r\n" not in self.buffer:
            if len(self.buffer) > HEAD_BYTES_MAX:
                return self.answer(400, {"error": "the request's head is too long"}, close=True)
            if not self.receive():
                return False
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        try:
            request = Request(head)
        except ValueError:
            return self.answer(400, {"error": "this is not HTTP/1.1"}, close=True)
        return route(self, request)

    def body_bytes(self, request):
        """Reads the request's body and returns its length; None when the client left in between."""
        if "100-continue" in request.headers.get("expect", ""):
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        left = request.length
        while left > 0:
            if not self.buffer and not self.receive():
                return None
            taken = min(left, len(self.buffer))
            left -= taken
            self.buffer = self.buffer[taken:]
        return request.length

    def answer(self, status, content, close):
        """Sends a whole answer. Returns whether the connection stays open."""
        body = json.dumps(content).encode() + b"\n"
        close = close or STOP.requested
        self.sock.sendall(head_of(status, f"Content-Length: {len(body)}", close) + body)
        return not close

    def answer_in_parts(self, parts, close):
        """Sends an answer whose parts come one by one. Returns whether the connection stays open."""
        close = close or STOP.requested
        self.sock.sendall(head_of(200, "Transfer-Encoding: chunked", close))
        for part in parts:
            body = json.dumps(part).encode() + b"\n"
            self.sock.sendall(f"{len(body):x}\r\n".encode() + body + b"\r\n")
        self.sock.sendall(b"0\r\n\r\n")
        return not close

    def part(self):
        """Lets the client close first. Closing over bytes that were not read would reset the connection, and
        with it an answer that the client has not read yet."""
        self.sock.shutdown(socket.SHUT_WR)
        self.sock.settimeout(CLOSE_S)
        while self.sock.recv(RECEIVE_BYTES):
            pass


def head_of(status, framing, close):
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", "Content-Type: application/json", framing]
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines + ["", ""]).encode()


class Request:
    """The head of a request. Raises ValueError when it is none."""

    def __init__(self, head):
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, target, version = first.split(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0"):
            raise ValueError(version)
        self.path, _, query = target.partition("?")
        self.query = dict(pair.partition("=")[::2] for pair in query.split("&"))
        self.headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(line)
            self.headers[name.lower()] = value.strip()
        self.length = int(self.headers.get("content-length", "0"))
        self.milliseconds = min(max(int(self.query.get("ms", "0")), 0), 600_000)
        wish = self.headers.get("connection", "").lower()
        self.close = wish == "close" or (version == "HTTP/1.0" and wish != "keep-alive")


def identity(request):
    """Who answers, and what was asked: enough for a client to account for every request."""
    return {"release": os.environ.get("BATON_RELEASE", "none"), "pid": os.getpid(),
            "generation": os.environ.get("BATON_GENERATION", "none"),
            "conn": request.headers.get("x-conn"), "seq": request.headers.get("x-seq")}


def route(connection, request):
    """Answers a request by its method and path. Returns whether the connection stays open."""
    who = identity(request)
    if "transfer-encoding" in request.headers:
        return connection.answer(411, who, close=True)
    length = connection.body_bytes(request)
    if length is None:
        return False
    match request.method, request.path:
        case "GET", "/":
            return connection.answer(200, who, request.close)
        case "GET", "/health":
            healthy = "never-healthy" not in BEHAVIOUR and not STOP.requested
            return connection.answer(200 if healthy else 503, who | {"healthy": healthy}, request.close)
        case "GET", "/slow":
            time.sleep(request.milliseconds / 1000)  # the work that this request costs
            return connection.answer(200, who, request.close)
        case "GET", "/stream":
            return connection.answer_in_parts(trickle(who, request.milliseconds), request.close)
        case "POST", "/upload":
            return connection.answer(200, who | {"bytes": length}, request.close)
        case _, "/" | "/health" | "/slow" | "/stream" | "/upload":
            return connection.answer(405, who, request.close)
        case _:
            return connection.answer(404, who, request.close)


def trickle(who, milliseconds, parts=5):
    for part in range(parts):
        time.sleep(milliseconds / 1000 / parts)
        yield who | {"part": part}


def listening_socket():
    """The socket that was passed, as it is (no bind, no listen: its queue may already hold connections),
    or one of our own at $SOCKET or on $PORT."""
    passed = os.environ.get("LISTEN_PID") == str(os.getpid()) and int(os.environ.get("LISTEN_FDS", "0"))
    if passed:
        listener = socket.socket(fileno=LISTEN_FDS_START)
        os.set_inheritable(LISTEN_FDS_START, False)
    elif "SOCKET" in os.environ:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.environ["SOCKET"])
        listener.listen(LAST_ACCEPTS_MAX)
    else:
        host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080"))
        listener = socket.create_server((host, port), backlog=LAST_ACCEPTS_MAX)
    # Another process may take the connection between our poll and our accept, which must not block then.
    listener.setblocking(False)
    return listener


def accept_all(listener, most):
    """Gives a thread to every connection that waits now."""
    for _ in range(most):
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        threading.Thread(target=Connection(sock).run).start()


def notify(text):
    """Tells the supervisor, by systemd's notify protocol, when there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def main():
    if "exit-at-start" in BEHAVIOUR:
        sys.exit(int(BEHAVIOUR["exit-at-start"] or "1"))
    # The handler only has to exist: the signal's arrival is written to the pipe, which wakes the poll below.
    signals, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "ignore-term" in BEHAVIOUR else lambda *_: None)
    if "crash-after" in BEHAVIOUR:
        left = float(BEHAVIOUR["crash-after"]) - (time.monotonic() - STARTED)
        crash = threading.Timer(max(left, 0), os._exit, [3])
        crash.daemon = True
        crash.start()
    if "slow-start" in BEHAVIOUR and readable([signals], float(BEHAVIOUR["slow-start"])):
        return

    listener = listening_socket()
    notify("READY=1")
    while signals not in readable([signals, listener.fileno()]):
        accept_all(listener, LAST_ACCEPTS_MAX)

    # What waits in the queue now was sent to this process; what comes later belongs to the socket's other holders.
    accept_all(listener, LAST_ACCEPTS_MAX)
    listener.close()
    STOP.request()
    # The interpreter ends when the last connection's thread has: no request is cut.


if __name__ == "__main__":
    main()
