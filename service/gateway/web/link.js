/** A link that restores everything: the request in the fragment, which no server ever sees. */

/** Longer ones are cut by what people send links with. */
const MOST_CHARACTERS = 8000;

/** `tokens`: the hash that the picture must have. Null when a picture in the request makes it too long. */
export function linkOf(request, tokens) {
  const fragment = new URLSearchParams({ request: JSON.stringify(request), ...(tokens && { tokens }) });
  const link = `${location.origin}${location.pathname}#${fragment}`;
  return link.length > MOST_CHARACTERS ? null : link;
}

/** What such a link says, or null: {request, tokens}. */
export function readLink(hash) {
  const fragment = new URLSearchParams(hash.slice(1));
  try {
    const request = JSON.parse(fragment.get("request"));
    const plain = request && typeof request === "object" && !Array.isArray(request);
    return plain ? { request, tokens: fragment.get("tokens") } : null;
  } catch {
    return null;
  }
}
