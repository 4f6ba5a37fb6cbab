/** The service, as this page asks it: one function, one kind of error, and the API key. */

const KEY = "vqd-key";
let key = sessionStorage.getItem(KEY) ?? "";

/** What went wrong, as the service says it (RFC 9457). Status 0: it did not answer at all. */
export class Problem extends Error {
  constructor(status, detail, { errors = [], retryAfter = 0 } = {}) {
    super(detail);
    Object.assign(this, { status, errors, retryAfter });
  }

  static async of(response) {
    const told = await response.json().catch(() => ({}));
    const detail = told.detail ? `${told.title}: ${told.detail}` : `The service answered ${response.status}.`;
    const retryAfter = Number(response.headers.get("Retry-After")) || 0;
    return new Problem(response.status, detail, { errors: told.errors, retryAfter });
  }
}

/** `keep`: until the tab is closed; else it is gone with the page. It never leaves for anywhere but the service. */
export function useKey(value, keep) {
  key = value;
  if (keep) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
  document.dispatchEvent(new CustomEvent("newkey"));
}

export const hasKey = () => key !== "";

/** Throws Problem. Paths are relative to the page, which may be behind a proxy's prefix. `quiet`: no key is asked for. */
export async function ask(path, { method = "GET", headers = {}, body, quiet = false } = {}) {
  if (key) headers = { ...headers, Authorization: `Bearer ${key}` };
  if (body) headers = { ...headers, "Content-Type": "application/json" };
  const sent = { method, headers, body: body && JSON.stringify(body), cache: "no-store" };
  const response = await fetch(path, sent).catch(() => {
    throw new Problem(0, "The service does not answer. Is it running?");
  });
  if (response.ok) return response;
  const problem = await Problem.of(response);
  const another = problem.status === 401 || (problem.status === 403 && key);
  if (another && !quiet) document.dispatchEvent(new CustomEvent("keyneeded", { detail: problem }));
  throw problem;
}

export const askJson = async (path, options) => (await ask(path, options)).json();
