/** What the browser keeps: for good, or until the tab is closed. */

class Shelf {
  #storage;
  #spare = new Map();

  constructor(name) {
    try {
      this.#storage = window[name];
    } catch {
      this.#storage = null; // a browser that keeps nothing
    }
  }

  get(key, otherwise = null) {
    try {
      const kept = this.#storage?.getItem(`zephyr.${key}`) ?? this.#spare.get(key);
      return kept == null ? otherwise : JSON.parse(kept);
    } catch {
      return otherwise;
    }
  }

  /** Gives whether the browser keeps it; without that it lasts as long as the page. */
  set(key, value) {
    const text = JSON.stringify(value);
    try {
      this.#storage.setItem(`zephyr.${key}`, text);
      this.#spare.delete(key);
      return true;
    } catch {
      this.remove(key);
      this.#spare.set(key, text);
      return false;
    }
  }

  remove(key) {
    this.#spare.delete(key);
    try {
      this.#storage?.removeItem(`zephyr.${key}`);
    } catch {
      // nothing is kept there
    }
  }
}

export const lasting = new Shelf("localStorage");
export const passing = new Shelf("sessionStorage");
