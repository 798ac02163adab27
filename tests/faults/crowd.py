"""Several subscribers in a process of their own: `python crowd.py ENDPOINT SUBSCRIBERS LABELS`.

Each waits for a state before it says `ready`, reads until it has that many labels and the states
and events that were told with them, and prints what it has as a line of JSON.
"""

import asyncio
import json
import sys

from streamtwl import subscribe
from streamtwl.messages import Status


async def listen(endpoint: str, labels: int) -> dict:
    had: dict[str, int] = {}
    back = missed = 0
    async with subscribe(endpoint, ["label", "event", "status"]) as messages:
        async for message in messages:
            if not had:
                print("ready", flush=True)
            seq = had.setdefault(message.topic, message.seq)
            back += message.seq < seq
            missed += max(0, message.seq - seq)
            had[message.topic] = seq + 1
            told = message.last_seq if isinstance(message, Status) else {}
            if told.get("label/mic/") == labels - 1 and all(
                had.get(t, 0) > n for t, n in told.items()
            ):
                break
        recovered, lost = messages.recovered, dict(messages.lost)
    return {"had": had, "back": back, "missed": missed, "recovered": recovered, "lost": lost}


async def main() -> None:
    endpoint, subscribers, labels = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    each = [listen(endpoint, labels) for _ in range(subscribers)]
    for done in asyncio.as_completed(each):
        print(json.dumps(await done), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
