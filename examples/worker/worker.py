"""A worker without a socket that can be replaced without losing a piece of work.

It says READY=1 by systemd's notify protocol once it works, and on SIGTERM it finishes the piece that it has
begun and exits with 0.
"""

import os
import signal
import socket
import sys
import threading
import time

STARTED = time.monotonic()


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


def notify(text):
    """Tells the supervisor, when there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def work(n, seconds):
    """One piece of work, which must not be left half done."""
    print(f"working release={os.environ.get('BATON_RELEASE', 'none')} pid={os.getpid()} n={n}", flush=True)
    time.sleep(seconds)
    print(f"finished release={os.environ.get('BATON_RELEASE', 'none')} pid={os.getpid()} n={n}", flush=True)


def main():
    behaviour = read_behaviour()
    if "exit-at-start" in behaviour:
        sys.exit(int(behaviour["exit-at-start"] or "1"))
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "ignore-term" in behaviour else lambda *_: stop.set())
    if "crash-after" in behaviour:
        left = float(behaviour["crash-after"]) - (time.monotonic() - STARTED)
        crash = threading.Timer(max(left, 0), os._exit, [3])
        crash.daemon = True
        crash.start()
    if stop.wait(float(behaviour.get("slow-start", "0"))):
        return
    if "never-healthy" not in behaviour:
        notify("READY=1")
    seconds = float(os.environ.get("WORK_MS", "200")) / 1000
    n = 0
    while not stop.is_set():
        n += 1
        work(n, seconds)


if __name__ == "__main__":
    main()
