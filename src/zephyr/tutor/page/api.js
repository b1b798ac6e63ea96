/** The client of the server's API: requests, streams of events, and messages for errors. */

import { sessionStore } from "./storage.js";

/** A request that failed; `wait` is the seconds after which it may be tried again. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, wait = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, param, wait });
  }
}

const UNREACHABLE = "The server can’t be reached. Nothing you typed is lost.";
const BROKEN = "The connection broke before the answer was complete.";

/** The response as JSON. */
export async function call(path, options = {}) {
  const response = await send(path, options);
  try {
    return await response.json();
  } catch (error) {
    throw unlessAborted(error, options.signal, BROKEN);
  }
}

/** The response as a file. */
export async function download(path, key) {
  return (await send(path, { key })).blob();
}

/** Server-sent events as they arrive. Leaving the loop, or `signal`, closes the connection. */
export async function* stream(path, body, signal) {
  const response = await send(path, { method: "POST", body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new ApiError(BROKEN);
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(asSentence(event.error.message), event.error);
        yield event;
      }
    }
  } catch (error) {
    throw unlessAborted(error, signal, BROKEN);
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function send(
  path,
  { method = "GET", body, signal, key = sessionStore.get("password") } = {},
) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${utf8Bytes(key)}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: JSON.stringify(body) });
  } catch (error) {
    throw unlessAborted(error, signal, UNREACHABLE);
  }
  if (!response.ok) throw await responseError(response);
  return response;
}

/** A header holds bytes: a password with other letters goes as UTF-8. */
const utf8Bytes = (key) => String.fromCharCode(...new TextEncoder().encode(key));

function unlessAborted(error, signal, message) {
  return error instanceof ApiError || signal?.aborted ? error : new ApiError(message);
}

async function responseError(response) {
  let body = {};
  try {
    body = (await response.json()).error ?? {};
  } catch {
    // not JSON: a proxy has answered
  }
  const wait = retryAfter(response.headers.get("Retry-After"));
  const details = { status: response.status, code: body.code, param: body.param, wait };
  return new ApiError(errorMessage(response.status, body, wait), details);
}

function errorMessage(status, { message, code }, wait) {
  if (status === 401) return "The class password is missing or wrong.";
  if (status === 413) return "This is longer than the server takes. Shorten it and try again.";
  if (status === 429) {
    const when = wait ? `in ${wait} second${wait === 1 ? "" : "s"}` : "in a moment";
    return code === "too_many_guesses"
      ? `Too many wrong passwords. Try again ${when}.`
      : `Many are asking at the same time. Try again ${when}.`;
  }
  if (message) return asSentence(message);
  return status >= 500 ? "Something went wrong on the server." : `The server refused (${status}).`;
}

function asSentence(text) {
  const trimmed = String(text ?? "Something went wrong on the server").trim();
  const capitalised = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(capitalised) ? capitalised : `${capitalised}.`;
}

/** The seconds of a Retry-After header, which may be a number or a date. */
function retryAfter(header) {
  if (!header) return 0;
  const number = Number(header);
  const left = Number.isFinite(number) ? number : (Date.parse(header) - Date.now()) / 1000;
  return Math.max(0, Math.ceil(left || 0));
}
