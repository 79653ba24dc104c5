"""Serves what moto knows of AWS, with a bucket, until whoever started it has gone: then its standard input ends.

Each line there is a call of boto3, `["secretsmanager", "create_secret", {"Name": ...}]`, whose answer is one line too.
"""
import json
import sys

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()


def client(service):
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )


client("s3").create_bucket(Bucket="bucket")
print(port, flush=True)
for line in sys.stdin:
    service, method, arguments = json.loads(line)
    answer = getattr(client(service), method)(**arguments)
    print(json.dumps(answer, default=str), flush=True)
server.stop()
