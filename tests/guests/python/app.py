"""The behaviour of `typed`, in Python: see ../README.md."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import call, logging, metrics, settings, text
from wit_world.imports.types import (
    Event,
    Failure_Fatal,
    Failure_Retry,
    Header,
    Later,
    Patch,
    Verdict_Discard,
    Verdict_Pass,
    Verdict_Patch,
    Verdict_Reject,
    Verdict_Replace,
)


class Interceptor(exports.Interceptor):
    def intercept(self, batch):
        unwanted = settings.get("drop-level")
        if unwanted is None:
            unwanted = "debug"
        for event in batch:
            if event.body == b"retry":
                raise Err(Failure_Retry(Later("asked to", 250)))
            if event.body == b"fatal":
                raise Err(Failure_Fatal("asked to"))
        verdicts = [verdict(event, unwanted) for event in batch]
        logging.write(logging.Level.INFO, f"{call.handler()} got {len(verdicts)} events")
        metrics.add("handled", len(verdicts))
        return verdicts


def verdict(event, unwanted):
    record = text.decode(event.body)
    try:
        record = None if record is None else json.loads(record)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        return Verdict_Reject("not a JSON object")
    level = record.get("level")
    if not isinstance(level, str):
        return Verdict_Pass()
    if level == unwanted:
        return Verdict_Discard("level")
    if level == "split":
        return Verdict_Replace([part(event.body, "1"), part(event.body, "2")])
    if level == "mask":
        return Verdict_Patch(Patch([], [], b'{"level":"mask"}'))
    return Verdict_Patch(Patch([Header("severity", level)], ["tmp"], None))


def part(body, number):
    return Event([Header("part", number)], body)
