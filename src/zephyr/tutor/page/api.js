/** Calls of the server, and plain words for what can go wrong. */

import { passing } from "./store.js";

/** A call that failed. `wait` is how many seconds the server wants to be left alone. */
export class Failure extends Error {
  constructor(words, { status = 0, code = null, param = null, wait = 0 } = {}) {
    super(words);
    Object.assign(this, { status, code, param, wait });
  }
}

const UNREACHABLE = "The server can’t be reached. Nothing you typed is lost.";
const BROKEN = "The connection broke before the answer was complete.";

/** What the server answers, as JSON. */
export async function call(path, options = {}) {
  const response = await send(path, options);
  try {
    return await response.json();
  } catch (error) {
    throw unlessStopped(error, options.signal, BROKEN);
  }
}

/** What the server answers, as a file. */
export async function download(path, key) {
  return (await send(path, { key })).blob();
}

/** The events of an answer as they come. Ending the loop, or `signal`, closes the connection. */
export async function* stream(path, body, signal) {
  const response = await send(path, { method: "POST", body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Failure(BROKEN);
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Failure(sentence(event.error.message), event.error);
        yield event;
      }
    }
  } catch (error) {
    throw unlessStopped(error, signal, BROKEN);
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function send(path, { method = "GET", body, signal, key = passing.get("password") } = {}) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${asBytes(key)}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: JSON.stringify(body) });
  } catch (error) {
    throw unlessStopped(error, signal, UNREACHABLE);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** A header holds bytes: a password with other letters goes as UTF-8. */
const asBytes = (key) => String.fromCharCode(...new TextEncoder().encode(key));

function unlessStopped(error, signal, words) {
  return error instanceof Failure || signal?.aborted ? error : new Failure(words);
}

async function refusal(response) {
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // not JSON: something before the server has answered
  }
  const wait = seconds(response.headers.get("Retry-After"));
  const about = { status: response.status, code: said.code, param: said.param, wait };
  return new Failure(words(response.status, said, wait), about);
}

function words(status, { message, code }, wait) {
  if (status === 401) return "The class password is missing or wrong.";
  if (status === 413) return "This is longer than the server takes. Shorten it and try again.";
  if (status === 429) {
    const later = wait ? `in ${wait} second${wait === 1 ? "" : "s"}` : "in a moment";
    return code === "too_many_guesses"
      ? `Too many wrong passwords. Try again ${later}.`
      : `Many are asking at the same time. Try again ${later}.`;
  }
  if (message) return sentence(message);
  return status >= 500 ? "Something went wrong on the server." : `The server refused (${status}).`;
}

function sentence(text) {
  const plain = String(text ?? "Something went wrong on the server").trim();
  const whole = plain.charAt(0).toUpperCase() + plain.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

function seconds(header) {
  if (!header) return 0;
  const number = Number(header);
  const left = Number.isFinite(number) ? number : (Date.parse(header) - Date.now()) / 1000;
  return Math.max(0, Math.ceil(left || 0));
}
