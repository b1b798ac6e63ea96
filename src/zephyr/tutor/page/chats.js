/** Storage of the chats, which are kept in this browser and nowhere else. */

import { localStore } from "./storage.js";

const KEY = "chats";
const MAX_CHATS = 50;
const deleted = new Set(); // an answer that is still streamed must not save one again

/** The chats, last used first: {id, when, turns: [{role, content, model, …}]}. */
export const loadChats = () => localStore.get(KEY, []);

export function saveChat(chat) {
  if (deleted.has(chat.id)) return;
  const others = loadChats().filter(({ id }) => id !== chat.id);
  const all = [{ ...chat, when: Date.now() }, ...others].slice(0, MAX_CHATS);
  while (!localStore.set(KEY, all) && all.length > 1) all.pop(); // the browser has no room for more
}

export function deleteChat(id) {
  deleted.add(id);
  localStore.set(
    KEY,
    loadChats().filter((chat) => chat.id !== id),
  );
}

export const deleteChats = () => loadChats().forEach(({ id }) => deleteChat(id));

export const newChat = () => ({ id: `${Date.now()}-${Math.random()}`, turns: [] });

export function titleOf(chat) {
  const first = chat.turns.find(({ role }) => role === "user")?.content ?? "";
  return first.replace(/\s+/g, " ").slice(0, 80);
}
