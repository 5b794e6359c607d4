// The behaviour of `typed`, in JavaScript: see ../README.md.

import { handler } from "levada:handler/call";
import { write } from "levada:handler/logging";
import { add } from "levada:handler/metrics";
import { get } from "levada:handler/settings";
import { decode, encode } from "levada:handler/text";

export const interceptor = {
  intercept(batch) {
    const unwanted = get("drop-level") ?? "debug";
    for (const event of batch) {
      if (is(event.body, "retry")) {
        throw { tag: "retry", val: { reason: "asked to", afterMs: 250 } };
      }
      if (is(event.body, "fatal")) {
        throw { tag: "fatal", val: "asked to" };
      }
    }
    const verdicts = batch.map((event) => verdict(event, unwanted));
    write("info", `${handler()} got ${verdicts.length} events`);
    add("handled", verdicts.length);
    return verdicts;
  },
};

function verdict(event, unwanted) {
  const record = parse(event.body);
  if (record === null || typeof record !== "object" || Array.isArray(record)) {
    return { tag: "reject", val: "not a JSON object" };
  }
  const level = record.level;
  if (typeof level !== "string") {
    return { tag: "pass" };
  }
  switch (level) {
    case unwanted:
      return { tag: "discard", val: "level" };
    case "split":
      return { tag: "replace", val: [part(event.body, "1"), part(event.body, "2")] };
    case "mask":
      return { tag: "patch", val: { set: [], remove: [], body: encode('{"level":"mask"}') } };
    default:
      return {
        tag: "patch",
        val: { set: [{ name: "severity", value: level }], remove: ["tmp"], body: null },
      };
  }
}

// The value of a JSON text; null if it is none.
function parse(body) {
  const text = decode(body) ?? null;
  if (text === null) {
    return null;
  }
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function part(body, number) {
  return { headers: [{ name: "part", value: number }], body };
}

function is(body, word) {
  return body.length === word.length && decode(body) === word;
}
