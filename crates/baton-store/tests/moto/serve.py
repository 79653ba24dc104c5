"""Serves what moto knows of AWS, with a bucket, until whoever started it has gone: then its standard input ends.

Where it listens can be said: an address and a port, instead of loopback and any port.

Each line there is a call of boto3, `["secretsmanager", "create_secret", {"Name": ...}]`, whose answer is one line too.
"""
import json
import sys

import boto3
from moto.server import ThreadedMotoServer

host, port = (sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else ("127.0.0.1", 0)
server = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
server.start()
_, port = server.get_host_and_port()


def client(service):
    return boto3.client(
        service,
        endpoint_url=f"http://{host}:{port}",
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
