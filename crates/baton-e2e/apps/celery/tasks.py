"""A task that must be done once, and no more. Its work takes `ms`. What was begun and done is noted."""

import os
import time

import redis
from celery import Celery

BROKER = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

app = Celery("tasks", broker=BROKER)
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True

done = redis.Redis.from_url(BROKER)


@app.task
def work(n, ms):
    done.sadd("begun", n)
    time.sleep(ms / 1000)
    done.hincrby("done", n, 1)
