"""A program that can be asked how it is in every way that there is.

Its arguments say what it does; what it must do at a certain moment of a test, a file says that appears.
"""

import fcntl
import os
import signal
import socket
import sys
import threading
import time

GENERATION = os.environ["BATON_GENERATION"]


def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)


def http():
    """Answers what the file `answer` says: a status line, then the body. Only a request as it must be counts."""
    listener = socket.socket(fileno=3)
    while True:
        peer, _ = listener.accept()
        request = peer.recv(65536).decode().lower()
        with open("answer", encoding="utf-8") as file:
            status, _, body = file.read().partition("\n")
        if "host: web.test\r\n" not in request or "x-probe: 1\r\n" not in request:
            status = "400 Bad Request"
        peer.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        peer.close()


def watchdog():
    """Says that it is alive until the file `hang-GENERATION` appears; its port answers all the same."""
    assert int(os.environ["WATCHDOG_PID"]) == os.getpid()
    limit = int(os.environ["WATCHDOG_USEC"]) / 1e6
    notify("READY=1\nSTATUS=feeding")
    while not os.path.exists(f"hang-{GENERATION}"):
        notify("WATCHDOG=1")
        time.sleep(limit / 20)
    connection = socket.create_connection(("127.0.0.1", int(open("upstream").read())))
    print("reading what never comes", flush=True)
    connection.recv(1)


def beacon():
    """Touches a file until the file `hang-GENERATION` appears."""
    notify("READY=1")
    while not os.path.exists(f"hang-{GENERATION}"):
        with open(os.path.join(os.environ["BATON_SCRATCH"], "beat"), "w"):
            pass
        time.sleep(0.05)
    while True:
        signal.pause()


def elsewhere():
    """Listens on a port that nobody told it, and never asks for the one that it was told."""
    listener = socket.create_server(("127.0.0.1", int(open("port").read())))
    while True:
        listener.accept()


def greedy():
    """Uses more memory than it may from when the file `eat-GENERATION` appears."""
    notify("READY=1")
    wait_for(f"eat-{GENERATION}")
    memory = b"x" * (200 << 20)
    while memory:
        signal.pause()


def singleton():
    """Must be alone, and leaves a child behind that takes its time to end."""
    lock = open("lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(9)
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), os._exit(0)))
        while True:
            signal.pause()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if not os.path.exists(f"broken-{GENERATION}"):
        notify("READY=1")
    while True:
        signal.pause()


def worker():
    """Takes no new work on SIGUSR1, and is idle when the file `finished` is there."""
    quiescing = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: quiescing.set())
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    notify("READY=1")
    while not quiescing.wait(0.01):
        pass
    open(f"quiescing-{GENERATION}", "w").close()
    wait_for("finished")
    notify("X_BATON_IDLE=1")
    while True:
        signal.pause()


def slow():
    """Takes longer than it may, and says so in time."""
    notify("EXTEND_TIMEOUT_USEC=60000000\nSTATUS=migrating")
    time.sleep(2.5)
    notify("READY=1")
    while True:
        signal.pause()


def talker():
    """Says where it listens to itself, and after `speak` appears, that another process is its main one."""
    with open("socket.new", "w") as file:
        file.write(os.environ["NOTIFY_SOCKET"])
    os.rename("socket.new", "socket")
    for _ in range(300):
        notify("STATUS=" + "x" * 3000)
    notify("READY=1")
    wait_for("speak")
    notify("MAINPID=1")
    while True:
        signal.pause()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
