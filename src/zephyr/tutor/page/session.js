/** The session: the anonymous id under which the server stores what a browser sends. */

import { call } from "./api.js";
import { localStore } from "./storage.js";

const KEY = "session";

const storedSession = () => localStore.get(KEY);

/** Calls `action` with the session; one that the server does not know is replaced once. */
export async function withSession(action) {
  const stored = storedSession();
  try {
    return await action(stored ?? (await createSession()));
  } catch (error) {
    if (!stored || !isUnknownSession(error)) throw error;
    return action(await createSession());
  }
}

/** The session, or null where none can be created: for requests that do not need one. */
export async function sessionOrNull() {
  try {
    return storedSession() ?? (await createSession());
  } catch {
    return null;
  }
}

/** Has the server delete all that it stores of the session; returns the number of entries. */
export async function deleteSession() {
  const session = storedSession();
  if (!session) return 0;
  let deleted = 0;
  try {
    ({ deleted } = await call(`tutor/session/${session}`, { method: "DELETE" }));
  } catch (error) {
    if (!isUnknownSession(error) && error.status !== 404) throw error;
  }
  localStore.remove(KEY);
  return deleted;
}

async function createSession() {
  const { session } = await call("tutor/session", { method: "POST" });
  localStore.set(KEY, session);
  return session;
}

function isUnknownSession({ status, code, param, message }) {
  return status === 400 && (param === "session" || /session/i.test(`${code} ${message}`));
}
