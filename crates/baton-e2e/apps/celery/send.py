"""Sends tasks, one every 25 ms, for as long as standard input is open, and prints how many."""

import select
import sys

from tasks import work

n = 0
while not select.select([sys.stdin], [], [], 0.025)[0]:
    n += 1
    work.delay(n, 50 + n * 79 % 100)
print(n)
