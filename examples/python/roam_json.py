#!/usr/bin/env python3
"""A Roam client in plain JSON: what a program in any language needs to say on NATS, and to hear.

As a program (see --help):

    python3 roam_json.py put acme/alice/demo theme dark
    python3 roam_json.py watch acme/alice/demo

As a library:

    roam = await Roam.connect("nats://127.0.0.1:4222", "acme", "alice", "laptop")
    receipt = await roam.put("demo", "theme", "dark")
    async for event in roam.watch("demo"):
        print(event.revision, event.records)

The subjects, the messages and their meaning are those of Roam's protocol, version 1. JSON Schemas of all messages are in
schemas/json/. A change lives in memory here: a program that must not lose one keeps it on disk until its receipt.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import socket
import sys
import time
import uuid
from dataclasses import dataclass

import nats
import nats.errors
import nats.js.errors

JSON = {"Content-Type": "application/json"}

# A receipt that has not come after this many seconds is asked for by sending the same change again.
RECEIPT_AFTER = 10
# How often the delta is fetched although no notice seems to be missing: the last one of all may be lost without a trace.
CHECK_EVERY = 60
# JetStream's answer when a stream, or the part of one device, is full: nothing was stored.
STREAM_IS_FULL = 10077


class Problem(Exception):
    """Something was refused. `code` is stable: act on it. `fields` is the whole problem, as JSON."""

    def __init__(self, fields):
        super().__init__("{code}: {message}".format(**fields))
        self.code = fields["code"]
        self.retry = fields["retry"]
        self.fields = fields


class Unknown(Exception):
    """There was no receipt in time. The change may take effect: send the very same one again, under the same id."""


@dataclass
class Event:
    """What happened to a profile: one revision, or all that changed since the event before.

    `records` is a list of dictionaries with key, revision, time, device, conflict and state; each record comes once, in
    its newest state. After a `reset` it is all there is: forget what you held.
    """

    revision: int
    records: list
    reset: bool = False


class Roam:
    """One device of one user. Make it with `connect`."""

    def __init__(self, nc, tenant, user, device):
        self._nc = nc
        self._js = nc.jetstream()
        self._tenant, self._user, self._device = token(tenant), token(user), token(device)
        self._waiting = {}  # what waits for a receipt: by the id of the change, or by its sequence
        self._early = {}  # the last receipts that nobody waited for: one may come before its PubAck
        self._watches = set()  # one queue for each watch
        self._seen = {}  # the highest revision that was seen of each app

    @classmethod
    async def connect(cls, server, tenant, user, device, timeout=10, **options):
        """Connects, or raises ConnectionError after `timeout` seconds; from then on the connection is made again for ever.

        `options` go to nats.connect: credentials, TLS and the like.
        """
        roam = None

        async def reconnected():
            roam._doubt()

        async def error(reason):
            # Slow consumers drop messages, and permissions that do not fit are told here and nowhere else.
            if roam is None:
                return  # while connecting for the first time; the time-out tells
            print(f"nats: {reason!r}", file=sys.stderr)
            if isinstance(reason, nats.errors.SlowConsumerError):
                roam._doubt()

        connecting = nats.connect(
            server,
            # Answers may come below this prefix only: it is what permissions allow, and what responders answer to.
            inbox_prefix=f"_INBOX.{token(tenant)}.{token(user)}.{token(device)}",
            max_reconnect_attempts=-1,
            reconnected_cb=reconnected,
            error_cb=error,
            **options,
        )
        try:
            nc = await asyncio.wait_for(connecting, timeout)
        except asyncio.TimeoutError:
            raise ConnectionError(f"no server answers at {server}; is it running? start one with: roam up") from None
        roam = cls(nc, tenant, user, device)
        await nc.subscribe(f"roam.v1.receipt.{roam._tenant}.{roam._user}.*.{roam._device}", cb=roam._on_receipt)
        await nc.flush()
        return roam

    async def close(self):
        """Closes the connection. Whoever waits for a receipt learns nothing more."""
        await self._nc.drain()

    # ---- publishing ----

    async def put(self, app, key, value, content_type="text/plain", ttl=None, expect="any"):
        """Writes a record. Returns once that is saved, with what the receipt says of it."""
        return await self.change(app, [put(key, value, content_type, ttl, expect)])

    async def delete(self, app, key, expect="any"):
        """Deletes a record. Returns once that is saved."""
        return await self.change(app, [delete(key, expect)])

    async def change(self, app, ops, base=None, change_id=None, timeout=30):
        """Applies all operations, or none if an expectation does not hold. Returns once that is saved (fsynced).

        Gives {"revision", "time", "conflicts", "superseded", "again"}. With `base`, records that another device has
        changed since that revision are reported as conflicts. Raises `Problem` if it is refused for good, `Unknown` if
        there is no receipt in time.
        """
        # One id for all attempts: however often it is sent, it takes effect once.
        change_id = change_id or new_id()
        payload = write("change", {"id": change_id, "base": base, "ops": ops})
        deadline, pause = time.monotonic() + timeout, 0.05
        while time.monotonic() < deadline:
            receipt = await self._attempt(app, payload, change_id, min(deadline, time.monotonic() + RECEIPT_AFTER))
            if receipt is not None:
                return self._outcome(app, receipt)
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
            pause = min(2 * pause, 2)
        raise Unknown(change_id)

    async def send(self, app, payload, timeout=30):
        """Publishes these very bytes as a change and gives its receipt, matched by the sequence of the PubAck: for bytes
        of which nobody knows whether they are a change."""
        ack = await self._js.publish(self._subject("change", app) + "." + self._device, payload, headers=JSON)
        receipt = self._early.pop(ack.seq, None)
        if receipt is None:
            receipt = await asyncio.wait_for(self._receipt_of(ack.seq), timeout)
        return self._outcome(app, receipt)

    async def _attempt(self, app, payload, change_id, deadline):
        """The receipt; None if the change has to be sent again."""
        receipt = self._receipt_of(change_id)
        try:
            # Once the PubAck is here the change is accepted, and once the receipt is here it is saved.
            await self._js.publish(self._subject("change", app) + "." + self._device, payload, headers=JSON)
            answer = await asyncio.wait_for(receipt, deadline - time.monotonic())
        except nats.js.errors.APIError as error:
            if error.err_code == STREAM_IS_FULL:
                return None
            raise
        except (nats.errors.MaxPayloadError, nats.errors.ConnectionClosedError):
            raise
        except (asyncio.TimeoutError, nats.errors.Error):
            return None  # it may have been stored all the same
        finally:
            self._waiting.pop(change_id, None)
        problem = answer["outcome"].get("rejected")
        # `busy` decides nothing: the same id is sent again.
        return None if problem and problem["retry"] else answer

    def _receipt_of(self, key):
        future = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        return future

    async def _on_receipt(self, message):
        # Without our header it is not Roam's: NATS lets anybody steer an answer onto any subject.
        if not is_ours(message):
            return
        receipt = read("receipt", message.data)
        # What could not be decoded has no id, but the sequence that its PubAck named.
        sequence = receipt["sequence"]
        future = self._waiting.pop(receipt["id"], None) or self._waiting.pop(sequence, None)
        if future is None:
            self._early[sequence] = receipt
            while len(self._early) > 100:
                self._early.pop(next(iter(self._early)))
        elif not future.done():
            future.set_result(receipt)

    def _outcome(self, app, receipt):
        if "rejected" in receipt["outcome"]:
            raise Problem(receipt["outcome"]["rejected"])
        applied = receipt["outcome"]["applied"]
        self._saw(app, applied["revision"])
        return {**applied, "again": receipt["again"]}

    # ---- reading ----

    async def latest(self, app, keys=None, prefix=None):
        """The records of these keys, of this prefix, or all. Gives (records, unknown keys, head).

        Never older than anything that this client has seen of the profile.
        """
        if keys is not None:
            select = {"keys": list(keys)}
        else:
            select = {"prefix": prefix} if prefix else "all"
        records, unknown, after = [], [], None
        while True:
            request = {"select": select, "after": after, **self._fresh(app)}
            reply = await self._ask("latest", app, request)
            records += reply["records"]
            unknown += reply["unknown"]
            if reply["next"] is None:
                return records, unknown, reply["head"]
            if keys is None:
                after = reply["next"]
            else:
                # The page was full before all keys were answered: ask for the others again.
                select = {"keys": select["keys"][select["keys"].index(reply["next"]) :]}

    async def get(self, app, key):
        """The record of a key; None if the profile does not know it."""
        records, _, _ = await self.latest(app, keys=[key])
        return records[0] if records else None

    async def changes(self, app, cursor=None, min_revision=0):
        """All that changed since the cursor, tombstones included. Gives (records, cursor, head).

        The cursor is opaque: keep it, and give it back. A `Problem` with the code `reset` says that it is too old.
        """
        newest = {}
        while True:
            reply = await self._ask("changes", app, {"cursor": cursor, **self._fresh(app, min_revision)})
            for record in reply["records"]:
                # What changes between two pages comes again on the later one, which counts.
                newest.pop(record["key"], None)
                newest[record["key"]] = record
            cursor = reply["cursor"]
            if not reply["more"]:
                return list(newest.values()), cursor, reply["head"]

    async def history(self, app, key, limit=None):
        """The kept versions of a key, newest first."""
        return (await self._ask("history", app, {"key": key, "limit": limit}))["versions"]

    async def _ask(self, verb, app, request, timeout=15):
        payload, deadline, pause = write(f"{verb}_request", request), time.monotonic() + timeout, 0.05
        while True:
            try:
                left = max(0.1, deadline - time.monotonic())
                message = await self._nc.request(self._subject(verb, app), payload, timeout=left, headers=JSON)
                if not is_ours(message):
                    raise nats.errors.NoRespondersError
                reply = read(f"{verb}_reply", message.data)
                self._saw(app, reply["head"])
                return reply
            except (Problem, nats.errors.Error) as error:
                # Reading decides nothing, so it is safe to ask again: nobody listens just now, or a replica is behind.
                retry = error.retry if isinstance(error, Problem) else True
                if not retry or time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
            pause = min(2 * pause, 2)

    def _fresh(self, app, min_revision=0):
        """Makes a replica wait until it has what this client has seen."""
        revision = max(self._seen.get(app, 0), min_revision)
        return {"min_revision": revision, "wait_ms": 5000} if revision else {}

    def _saw(self, app, revision):
        self._seen[app] = max(self._seen.get(app, 0), revision)

    # ---- watching ----

    async def watch(self, app, cursor=None):
        """Follows a profile: first all that changed since the cursor (or all there is), then what changes from now on.

        Every revision comes in order and once, or a state that includes it, whatever is lost on the way.
        """
        queue = asyncio.Queue()

        async def on_notice(message):
            queue.put_nowait(message)

        # Listening comes first, so that nothing falls between the delta and the first notice.
        subscription = await self._nc.subscribe(self._subject("notice", app), cb=on_notice)
        await self._nc.flush()
        self._watches.add(queue)
        try:
            at, missing, wanted = 0, True, 0
            while True:
                if missing:
                    event, cursor = await self._catch_up(app, cursor, wanted, at)
                    at = max(at, event.revision)
                    if event.records or event.reset:
                        yield event
                event, wanted = await self._hear(queue, at)
                missing = event is None
                if event is not None:
                    at = event.revision
                    self._saw(app, at)
                    yield event
        finally:
            self._watches.discard(queue)
            await subscription.unsubscribe()

    async def _catch_up(self, app, cursor, wanted, at):
        """Fetches the delta, for as long as it takes. Gives the event that it is, and the next cursor."""
        reset = False
        while True:
            try:
                records, cursor, head = await self.changes(app, cursor, wanted)
            except Problem as problem:
                if problem.code == "reset":
                    cursor, reset = None, True
                elif not problem.retry:
                    raise
                wanted = 0  # no replica has got there yet: what they have brings us further all the same
            except nats.errors.ConnectionClosedError:
                raise
            except nats.errors.Error:
                continue  # nobody answers now; `changes` has waited
            else:
                # The cursor may stand before what notices have told since: that is not told again.
                new = [record for record in records if reset or record["revision"] > at]
                return Event(head, new, reset), cursor

    async def _hear(self, queue, at):
        """The next notice as an event; or None and the revision that the delta must reach."""
        while True:
            try:
                message = await asyncio.wait_for(queue.get(), CHECK_EVERY * random.uniform(0.75, 1.25))
            except asyncio.TimeoutError:
                return None, at
            if message is None:  # the connection was made anew, or something was dropped
                return None, at
            headers = message.headers or {}
            if "Content-Type" not in headers:
                continue  # not Roam's
            try:
                if not is_ours(message):
                    # A device wrote it that speaks the other encoding: a header says which revision it is about.
                    revision, records = int(headers["Roam-Revision"]), None
                else:
                    notice = read("notice", message.data)
                    revision, records = notice["revision"], records_in(notice)
            except (Problem, ValueError, KeyError):
                return None, at
            if revision <= at:
                continue  # told already
            if revision > at + 1 or records is None:
                return None, revision  # one is missing, or the values were too large for a notice
            return Event(revision, records), 0

    def _doubt(self):
        """Notices may have been lost: every watch fetches the delta."""
        for queue in self._watches:
            queue.put_nowait(None)

    def _subject(self, verb, app):
        return f"roam.v1.{verb}.{self._tenant}.{self._user}.{token(app)}"


# ---- messages ----


def token(name):
    """A name as one token of a subject: A-Z a-z 0-9 _ - stay, every other byte becomes %XX."""
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in name.encode())


def new_id():
    """A UUIDv7 (RFC 9562, section 5.7): milliseconds since 1970, then randomness."""
    number = (time.time_ns() // 1_000_000) << 80 | random.SystemRandom().getrandbits(80)
    number = number & ~(0xF << 76) | 7 << 76
    return str(uuid.UUID(int=number & ~(0b11 << 62) | 0b10 << 62))


def put(key, value, content_type="text/plain", ttl=None, expect="any"):
    """An operation that writes a record. `expect` is "any", "absent", or {"at": revision}."""
    return {"key": key, "action": {"put": {"value": to_json(value), "content_type": content_type, "ttl": ttl}}, "expect": expect}


def delete(key, expect="any"):
    """An operation that deletes a record."""
    return {"key": key, "action": "delete", "expect": expect}


def to_json(value):
    """A value as it stands in JSON: text as it is, anything else in base64."""
    return value if isinstance(value, str) else {"base64": base64.b64encode(value).decode()}


def value_of(record):
    """The value of a record, as text or bytes; None if it is deleted or expired."""
    if record is None or not isinstance(record["state"], dict):
        return None
    value = record["state"]["value"]["value"]
    return value if isinstance(value, str) else base64.b64decode(value["base64"])


def write(kind, message):
    """A message under the one key that names its kind and version."""
    return json.dumps({f"{kind}_v1": message}, ensure_ascii=False).encode()


def read(kind, payload):
    """The message of that kind. Raises `Problem` if that is what came instead."""
    message = json.loads(payload)
    if "problem_v1" in message:
        raise Problem(message["problem_v1"])
    return message[f"{kind}_v1"]


def records_in(notice):
    """The records that a notice tells of; None if they were too large for it."""
    if any(op["state"] is None for op in notice["ops"]):
        return None
    stamp = {name: notice[name] for name in ("revision", "time", "device")}
    return [{**op, **stamp} for op in notice["ops"]]


def is_ours(message):
    """Whether it is Roam's, and in JSON."""
    return (message.headers or {}).get("Content-Type") == JSON["Content-Type"]


# ---- the program ----


def parse_profile(text):
    """tenant/user/app; a slash in a name is written %2F, and a percent sign %25."""
    parts = [part.replace("%2F", "/").replace("%25", "%") for part in text.split("/")]
    if len(parts) != 3 or not all(parts):
        raise argparse.ArgumentTypeError("a profile is written tenant/user/app")
    return parts


def parse_expect(text):
    if text in ("any", "absent"):
        return text
    if text.startswith("at:") and text[3:].isdigit():
        return {"at": int(text[3:])}
    raise argparse.ArgumentTypeError('an expectation is "any", "absent" or "at:REVISION"')


def parse_arguments():
    parser = argparse.ArgumentParser(description="A Roam client in plain JSON.")
    parser.add_argument("--server", default=os.environ.get("ROAM_SERVER", "nats://127.0.0.1:4222"), help="the URL of NATS")
    parser.add_argument("--device", default=os.environ.get("ROAM_DEVICE", socket.gethostname()), help="who writes")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, help, *arguments):
        sub = commands.add_parser(name, help=help)
        sub.add_argument("profile", type=parse_profile, help="tenant/user/app")
        for argument in arguments:
            sub.add_argument(argument)
        return sub

    put = command("put", "write a record", "key", "value")
    put.add_argument("--content-type", default="text/plain")
    put.add_argument("--ttl", type=int, help="seconds until it expires")
    put.add_argument("--expect", type=parse_expect, default="any", help="any, absent or at:REVISION")
    command("get", "print a value", "key")
    command("rm", "delete a record", "key").add_argument("--expect", type=parse_expect, default="any")
    command("ls", "list all records").add_argument("prefix", nargs="?")
    command("history", "list the kept versions of a key", "key")
    for name, help in (("changes", "list what changed since a cursor"), ("watch", "follow a profile")):
        command(name, help).add_argument("--cursor")
    return parser.parse_args()


async def run(arguments):
    tenant, user, app = arguments.profile
    roam = await Roam.connect(arguments.server, tenant, user, arguments.device)
    try:
        if arguments.command == "put":
            options = (arguments.content_type, arguments.ttl, arguments.expect)
            show(await roam.put(app, arguments.key, arguments.value, *options))
        elif arguments.command == "rm":
            show(await roam.delete(app, arguments.key, arguments.expect))
        elif arguments.command == "get":
            value = value_of(await roam.get(app, arguments.key))
            if value is None:
                sys.exit(f"{arguments.key}: there is no such record")
            sys.stdout.buffer.write(value.encode() if isinstance(value, str) else value)
        elif arguments.command == "ls":
            records, _, _ = await roam.latest(app, prefix=arguments.prefix)
            for record in records:
                show(record)
        elif arguments.command == "history":
            for version in await roam.history(app, arguments.key):
                show(version)
        elif arguments.command == "changes":
            records, cursor, head = await roam.changes(app, arguments.cursor)
            show({"head": head, "cursor": cursor, "records": records})
        elif arguments.command == "watch":
            async for event in roam.watch(app, arguments.cursor):
                show({"revision": event.revision, "reset": event.reset, "records": event.records})
    finally:
        await roam.close()


def show(message):
    """One line of JSON."""
    print(json.dumps(message, ensure_ascii=False), flush=True)


def main():
    try:
        asyncio.run(run(parse_arguments()))
    except KeyboardInterrupt:
        sys.exit(130)
    except (Problem, Unknown, nats.errors.Error, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
