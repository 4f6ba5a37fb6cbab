/** The lines for a program that make a request. The key is never in them: it comes from the environment. */

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const several = (request) => (request.n ?? 1) > 1;

export function curl(request, fileName, withKey) {
  const target = several(request) ? "pictures.json" : fileName;
  return [
    `curl -sS --fail ${quoted(service("generate"))}`,
    ...(withKey ? [`-H "Authorization: Bearer $VQD_API_KEY"`] : []),
    "-H 'Content-Type: application/json'",
    ...(several(request) ? [] : ["-H 'Accept: image/*'"]),
    `-d ${quoted(JSON.stringify(request))}`,
    `-o ${quoted(target)}`,
  ].join(" \\\n  ");
}

/** With the client of this repository, `import vqd`, which reads the key from VQD_API_KEY itself. */
export function python(request, fileName) {
  const given = Object.entries(request).map(([name, value]) => `    ${argument(name, value)},\n`);
  return [
    "# `pip install .` in a clone of vqd installs its client.",
    "import vqd\n",
    `with vqd.Client(${JSON.stringify(service(""))}) as client:`,
    `    made = client.generate(\n${given.map((line) => `    ${line}`).join("")}    )`,
    ...(several(request)
      ? ["for i, image in enumerate(made.images):", `    image.save(f"{i}-" + ${JSON.stringify(fileName)})`]
      : [`made.images[0].save(${JSON.stringify(fileName)})`]),
  ].join("\n");
}

/** For Node, without a package; a browser has the same fetch. */
export function javascript(request, fileName, withKey) {
  const headers = [
    '"Content-Type": "application/json"',
    ...(several(request) ? [] : ['Accept: "image/*"']),
    ...(withKey ? ["Authorization: `Bearer ${process.env.VQD_API_KEY}`"] : []),
  ];
  const name = JSON.stringify(fileName);
  return [
    'import { writeFile } from "node:fs/promises";\n',
    `const answer = await fetch(${JSON.stringify(service("generate"))}, {`,
    '  method: "POST",',
    `  headers: { ${headers.join(", ")} },`,
    `  body: JSON.stringify(${JSON.stringify(request)}),`,
    "});",
    "if (answer.status !== 200) throw new Error(await answer.text());",
    ...(several(request)
      ? [
          "for (const { index, b64_json } of (await answer.json()).images) {",
          `  await writeFile(\`\${index}-\` + ${name}, b64_json, "base64");`,
          "}",
        ]
      : [`await writeFile(${name}, Buffer.from(await answer.arrayBuffer()));`]),
  ].join("\n");
}

const service = (path) => new URL(path, document.baseURI.split("#")[0]).href;

/** A keyword; what is no name, as a link may have it, stays text. */
function argument(name, value) {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? `${name}=${literal(value)}` : `**${literal({ [name]: value })}`;
}

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
