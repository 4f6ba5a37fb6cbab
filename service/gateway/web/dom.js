/** Elements. What comes from outside can only become text: nothing here reads HTML. */

/** A new element; properties that begin with "on" are listeners, children that are null are left out. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

export function button(text, act, properties = {}) {
  return el("button", { type: "button", onclick: act, ...properties }, text);
}

/** Tells people who listen to the page. */
export function say(text) {
  byId("said").textContent = text;
}

/** Copies `text`, and says so on the button. Where a page may not copy (plain HTTP), it stands there to be copied. */
export async function copy(pressed, text) {
  const before = pressed.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el("input", { type: "text", readonly: true, value: text, "aria-label": "To be copied" });
    pressed.replaceWith(field);
    field.select();
    return;
  }
  pressed.textContent = "Copied";
  say("Copied");
  setTimeout(() => (pressed.textContent = before), 1200);
}
