#!/usr/bin/env python3
"""Shows what roam_json.py does, against a running system, and checks each step: exits with 1 at the first difference.

    python3 demo.py [--server nats://127.0.0.1:4222]

It writes as a user of its own, whom nobody has used before, so that it can be run as often as one likes.
"""

import argparse
import asyncio
import os
import sys
import time
import uuid

import roam_json
from roam_json import Problem, Roam, delete, put, value_of

WITHIN = 30


class Differs(Exception):
    pass


def check(what, found, expected):
    if found != expected:
        raise Differs(f"{what}: expected {expected!r}, found {found!r}")
    print(f"  {what}: {found!r}"[:110])


async def refused(attempt):
    """The code that something is refused by."""
    try:
        return f"not refused: {await attempt!r}"
    except Problem as problem:
        return problem.code


async def told(watch):
    """What a watch tells next: the revision, and the values by key."""
    event = await asyncio.wait_for(watch.__anext__(), WITHIN)
    return event.revision, {record["key"]: value_of(record) for record in event.records}


async def a_value_roams(laptop, phone):
    records, _, head = await phone.latest("editor")
    check("a profile that was never written", (records, head), ([], 0))
    watch = phone.watch("editor")
    # The watch has to listen before there is something to hear.
    first = asyncio.ensure_future(told(watch))
    receipt = await laptop.put("editor", "theme", "dark")
    check("the receipt", (receipt["revision"], receipt["again"], receipt["superseded"]), (1, False, []))
    check("the phone is told", await first, (1, {"theme": "dark"}))
    record = await phone.get("editor", "theme")
    check("the phone finds", (value_of(record), record["device"], record["time"]), ("dark", "laptop", receipt["time"]))
    check("no such key", await phone.get("editor", "font"), None)
    return watch


async def several_at_once(laptop, phone, watch):
    binary, key = bytes(range(256)), "Grüße/日本語"
    receipt = await laptop.change("editor", [put("icon", binary, "image/png"), put(key, "konnichiwa\n"), delete("theme")])
    check("one revision for all of a change", receipt["revision"], 2)
    check("the phone is told of all", await told(watch), (2, {"icon": binary, key: "konnichiwa\n", "theme": None}))
    check("deleted", (await phone.get("editor", "theme"))["state"], "deleted")
    records, _, _ = await phone.latest("editor", prefix="G")
    check("by prefix", [record["key"] for record in records], [key])
    records, unknown, _ = await phone.latest("editor", keys=["icon", "none"])
    check("by keys", ([value_of(record) for record in records], unknown), ([binary], ["none"]))


async def too_large_for_a_notice(laptop, watch):
    value = "x" * 100_000
    receipt = await laptop.put("editor", "large", value)
    check("a large value is fetched", await told(watch) == (receipt["revision"], {"large": value}), True)
    await laptop.delete("editor", "large")
    check("and gone again", (await told(watch))[1], {"large": None})


async def expectations(laptop, phone):
    check("it exists already", await refused(laptop.put("editor", "icon", "new", expect="absent")), "exists")
    check("it is at another revision", await refused(laptop.put("editor", "icon", "new", expect={"at": 1})), "conflict")
    receipt = await laptop.put("editor", "icon", "new", expect={"at": 2})
    unseen = await phone.put("editor", "icon", "newer")
    late = await laptop.change("editor", [put("icon", "newest")], base=receipt["revision"])
    conflict = {"key": "icon", "revision": unseen["revision"], "device": "phone"}
    check("the last writer wins, and learns of a conflict", late["conflicts"], [conflict])
    versions = await phone.history("editor", "icon", limit=3)
    check("the history", [value_of(version) for version in versions], ["newest", "newer", "new"])


async def what_changed_since(laptop, phone):
    everything, cursor, _ = await phone.changes("editor")
    check("all there is", {record["key"] for record in everything} >= {"icon", "theme"}, True)
    await laptop.put("editor", "font", "mono")
    await laptop.put("editor", "font", "serif")
    await laptop.delete("editor", "icon")
    changed, cursor, _ = await phone.changes("editor", cursor)
    check("since the cursor", {record["key"]: value_of(record) for record in changed}, {"font": "serif", "icon": None})
    check("since then", (await phone.changes("editor", cursor))[0], [])
    check("a cursor of another profile", await refused(phone.changes("mail", cursor)), "invalid")


async def at_most_once(laptop):
    change, ops = roam_json.new_id(), [put("once", "1")]
    first = await laptop.change("editor", ops, change_id=change)
    second = await laptop.change("editor", ops, change_id=change)
    check("sent again", (second["again"], second["revision"]), (True, first["revision"]))
    other = laptop.change("editor", [put("once", "2")], change_id=change)
    check("another change under that id", await refused(other), "invalid")


async def bad_input(laptop):
    check("undecodable", await refused(laptop.send("editor", b"\xffrubbish")), "invalid")
    future = b'{"change_v2": {}}'
    check("a version of the future", await refused(laptop.send("editor", future)), "unsupported_version")
    check("no operation", await refused(laptop.change("editor", [])), "invalid")
    check("too many", await refused(laptop.change("editor", [delete(str(key)) for key in range(1001)])), "too_large")
    check("too large", await refused(laptop.put("editor", "k", "x" * (256 * 1024 + 1))), "too_large")


async def step(name, work):
    print(name)
    return await work


async def demo(server):
    user = f"demo {uuid.uuid4()}@example.com"
    laptop, phone = [await Roam.connect(server, "acme", user, device) for device in ("laptop", "phone")]
    watch = await step("two devices roam a value", a_value_roams(laptop, phone))
    await step("several operations at once", several_at_once(laptop, phone, watch))
    await step("a value that is too large for a notice", too_large_for_a_notice(laptop, watch))
    await step("expectations and conflicts", expectations(laptop, phone))
    await step("what changed since a cursor", what_changed_since(laptop, phone))
    await step("a change takes effect once", at_most_once(laptop))
    await step("bad input is refused by a code", bad_input(laptop))
    await watch.aclose()
    await laptop.close()
    await phone.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=os.environ.get("ROAM_SERVER", "nats://127.0.0.1:4222"))
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        asyncio.run(demo(arguments.server))
    except Differs as difference:
        sys.exit(f"DIFFERS: {difference}")
    print(f"all as it should be, in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
