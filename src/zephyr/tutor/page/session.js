/** The anonymous number under which the server keeps what a browser sends it. */

import { call } from "./api.js";
import { lasting } from "./store.js";

const KEY = "session";

export const kept = () => lasting.get(KEY);

/** Does something that needs a session; one that the server does not know is replaced once. */
export async function withSession(act) {
  const before = kept();
  try {
    return await act(before ?? (await begin()));
  } catch (failure) {
    if (!before || !unknown(failure)) throw failure;
    return act(await begin());
  }
}

/** The session for what can do without one: null where none can be had. */
export async function perhaps() {
  try {
    return kept() ?? (await begin());
  } catch {
    return null;
  }
}

/** Has the server delete all it keeps of the session; gives how much that was. */
export async function forget() {
  const session = kept();
  if (!session) return 0;
  let deleted = 0;
  try {
    ({ deleted } = await call(`tutor/session/${session}`, { method: "DELETE" }));
  } catch (failure) {
    if (!unknown(failure) && failure.status !== 404) throw failure;
  }
  lasting.remove(KEY);
  return deleted;
}

async function begin() {
  const { session } = await call("tutor/session", { method: "POST" });
  lasting.set(KEY, session);
  return session;
}

function unknown({ status, code, param, message }) {
  return status === 400 && (param === "session" || /session/i.test(`${code} ${message}`));
}
