"""Sends tasks, one every 25 ms while not many wait, for as long as standard input is open, and prints how many."""

import select
import sys

from tasks import done, work

# More than a worker fetches, and few enough to be done soon.
WAITING_MAX = 40

n = 0
while not select.select([sys.stdin], [], [], 0.025)[0]:
    if done.llen("celery") >= WAITING_MAX:
        continue
    n += 1
    work.delay(n, 50 + n * 79 % 100)
print(n)
