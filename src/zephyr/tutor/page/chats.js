/** Past chats, kept in this browser and nowhere else. */

import { lasting } from "./store.js";

const KEY = "chats";
const MOST = 50;
const deleted = new Set(); // an answer that is still on its way must not bring one back

/** The chats, the last used first: {id, when, turns: [{role, content, model, …}]}. */
export const chats = () => lasting.get(KEY, []);

export function keepChat(chat) {
  if (deleted.has(chat.id)) return;
  const others = chats().filter(({ id }) => id !== chat.id);
  const all = [{ ...chat, when: Date.now() }, ...others].slice(0, MOST);
  while (!lasting.set(KEY, all) && all.length > 1) all.pop(); // the browser has no room for more
}

export function deleteChat(id) {
  deleted.add(id);
  lasting.set(
    KEY,
    chats().filter((chat) => chat.id !== id),
  );
}

export const deleteChats = () => chats().forEach(({ id }) => deleteChat(id));

export const newChat = () => ({ id: `${Date.now()}-${Math.random()}`, turns: [] });

export function titleOf(chat) {
  const first = chat.turns.find(({ role }) => role === "user")?.content ?? "";
  return first.replace(/\s+/g, " ").slice(0, 80);
}
