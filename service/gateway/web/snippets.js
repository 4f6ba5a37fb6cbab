/** The curl and the Python line for a request. The key is never in them: it comes from the environment. */

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const several = (request) => (request.n ?? 1) > 1;

export function curl(request, fileName, withKey) {
  const target = several(request) ? "pictures.json" : fileName;
  return [
    `curl -s ${quoted(service("generate"))}`,
    ...(withKey ? [`-H "Authorization: Bearer $VQD_API_KEY"`] : []),
    "-H 'Content-Type: application/json'",
    ...(several(request) ? [] : ["-H 'Accept: image/*'"]),
    `-d ${quoted(JSON.stringify(request))}`,
    `-o ${quoted(target)}`,
  ].join(" \\\n  ");
}

export function python(request, fileName, withKey) {
  const headers = [
    ...(withKey ? [`"Authorization": f"Bearer {os.environ['VQD_API_KEY']}"`] : []),
    ...(several(request) ? [] : [`"Accept": "image/*"`]),
  ];
  const given = [`json=${literal(request)}`, ...(headers.length ? [`headers={${headers.join(", ")}}`] : []), "timeout=60"];
  const name = JSON.stringify(fileName);
  return [
    ...(several(request) ? ["import base64"] : []),
    ...(withKey ? ["import os"] : []),
    "from pathlib import Path\n\nimport httpx\n",
    `answer = httpx.post(\n    "${service("generate")}",\n${given.map((part) => `    ${part},\n`).join("")})`,
    "answer.raise_for_status()",
    ...(several(request)
      ? [
          `for image in answer.json()["images"]:`,
          `    Path(f"{image['index']}-${fileName}").write_bytes(base64.b64decode(image["b64_json"]))`,
        ]
      : [`Path(${name}).write_bytes(answer.content)`]),
  ].join("\n");
}

const service = (path) => new URL(path, document.baseURI.split("#")[0]).href;

/** A JSON value as Python writes it. */
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, part]) => `${JSON.stringify(name)}: ${literal(part)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}
