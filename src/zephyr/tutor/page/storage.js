/** JSON in the browser's storage, or in memory where the browser allows none. */

class JsonStorage {
  #storage;
  #memory = new Map();

  constructor(name) {
    try {
      this.#storage = window[name];
    } catch {
      this.#storage = null; // a browser that blocks storage
    }
  }

  get(key, fallback = null) {
    try {
      const stored = this.#storage?.getItem(`zephyr.${key}`) ?? this.#memory.get(key);
      return stored == null ? fallback : JSON.parse(stored);
    } catch {
      return fallback;
    }
  }

  /** Returns whether the browser stored it; otherwise it lasts as long as the page. */
  set(key, value) {
    const text = JSON.stringify(value);
    try {
      this.#storage.setItem(`zephyr.${key}`, text);
      this.#memory.delete(key);
      return true;
    } catch {
      this.remove(key);
      this.#memory.set(key, text);
      return false;
    }
  }

  remove(key) {
    this.#memory.delete(key);
    try {
      this.#storage?.removeItem(`zephyr.${key}`);
    } catch {
      // nothing is stored there
    }
  }
}

/** Lasts until it is removed. */
export const localStore = new JsonStorage("localStorage");
/** Lasts until the tab is closed. */
export const sessionStore = new JsonStorage("sessionStorage");
