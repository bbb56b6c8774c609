#!/usr/bin/env python3
"""A record processor for the KCL's MultiLangDaemon: writes each record's data to a file, then checkpoints it.

In: the daemon's messages, one JSON object a line. Out: one line a record in the file that KCL_LOG names.
"""
import base64
import json
import os
import sys

LOG = open(os.environ["KCL_LOG"], "a", buffering=1, encoding="ascii")


def send(message):
    sys.stdout.write("\n" + json.dumps(message) + "\n")
    sys.stdout.flush()


def receive():
    while True:
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        if line.strip():
            return json.loads(line)


def checkpoint(sequence, sub_sequence):
    send({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub_sequence})
    answer = receive()
    if answer.get("error"):
        LOG.write("refused %s\n" % answer["error"])


def main():
    while True:
        message = receive()
        action = message["action"]
        if action == "initialize":
            LOG.write("begin %s %s\n" % (message["shardId"], message.get("sequenceNumber")))
        elif action == "processRecords" and message["records"]:
            for record in message["records"]:
                LOG.write("record %s\n" % base64.b64decode(record["data"]).decode("ascii"))
            last = message["records"][-1]
            checkpoint(last["sequenceNumber"], last.get("subSequenceNumber"))
        elif action in ("shardEnded", "shutdownRequested"):
            checkpoint(None, None)
        send({"action": "status", "responseFor": action})


main()
