/** Every field of a request in words for people. What values it may have is the model's to say: GET /v1/models. */

const choice = (options) => ({ kind: "choice", options });
const toggle = { kind: "toggle" };
const whole = { step: 1 };

/**
 * By name, in the order of the page. `kind`: slider unless given. `symbol`: its letter in the paper.
 * `place`: words, knobs, advanced, or picture; `always`: said even if it is as usual. `around`: what a
 * sweep begins with, as shares of the model's own value. A field without one has no control, and is carried along as it is.
 */
export const FIELDS = {
  prompt: { label: "Prompt", kind: "text", place: "words", example: "what to draw, in a few words", hint: "What to draw, in a few words." },
  label: { label: "Class", kind: "label", place: "words", hint: "What to draw: one of the model's classes, by name or number." },
  negative_prompt: { label: "Without", kind: "text", place: "words", example: "nothing", hint: "What to steer away from. Needs guidance above 1." },
  model: { label: "Model", kind: "model", place: "words", hint: "Several models are served here; each has its own settings." },

  guidance_scale: { label: "Guidance", symbol: "s", place: "knobs", step: 0.1, hint: "How strongly the words steer. 1 is off, and takes half the work." },
  purity_r: { label: "Purity", symbol: "r", place: "knobs", step: 0.1, hint: "How much the places that the model is sure of are sharpened. 0 is off." },
  tokens_per_step: { label: "Tokens a step", symbol: "z", place: "knobs", ...whole, around: [0.25, 0.5, 1], hint: "The most pieces of the picture that one step fills in. Fewer take longer." },
  steps: { label: "Steps", place: "knobs", ...whole, around: [1, 2, 4], hint: "The fewest steps. More take longer." },
  sampler: { label: "Sampler", kind: "sampler", place: "knobs", hint: "In which order the picture is filled in." },
  seed: { label: "Seed", kind: "seed", place: "knobs", hint: "The same seed makes the same picture. Empty: a new one each time." },
  n: { label: "Pictures", place: "knobs", ...whole, hint: "How many at a time." },

  guidance_schedule: { label: "Guidance over time", place: "advanced", ...choice({ constant: "always", ramp: "growing", interval: "from the middle on", cosine: "late" }), hint: "When the words steer while the picture appears." },
  masking_schedule: { label: "Pace", place: "advanced", ...choice({ cosine: "slow start", linear: "even", poly: "quick start" }), hint: "How fast the sampler md4 reveals the picture." },
  truncation_rate: { label: "Likeliest share", place: "advanced", step: 0.01, hint: "Draw only from the likeliest choices, up to this share. 1 is all." },
  temperature: { label: "Temperature", place: "advanced", step: 0.05, hint: "Above 1: more varied. Below 1: safer." },
  final_resample: { label: "Draw all anew at the end", place: "advanced", ...toggle, hint: "The last step draws every place again, in view of all others." },
  purity_form: { label: "Form of the purity", place: "advanced", ...choice({ linear: "linear", power: "power" }), hint: "For research: how r sharpens." },
  image_index: { label: "Picture of the seed", place: "advanced", kind: "number", least: 0, hint: "A seed has many pictures; this is the number of the first one. 0 unless given." },
  truncate_prompt: { label: "Cut a long prompt", place: "advanced", ...toggle, hint: "A prompt that is too long is cut, with a warning, and not refused." },
  format: { label: "File type", place: "advanced", ...choice({ png: "PNG", jpeg: "JPEG", webp: "WebP" }), hint: "PNG and WebP keep every pixel; JPEG is smaller." },
  metadata: { label: "Parameters in the file", place: "advanced", ...toggle, hint: "The file says what made it." },
  priority: { label: "Priority", place: "advanced", ...choice({ interactive: "now", batch: "when there is time" }), hint: "Who waits in front of the page goes first." },
  deadline_s: { label: "Give up after", place: "advanced", kind: "number", least: 0.1, hint: "Seconds. Empty: never." },
  adapt: { label: "Fewer steps if late", place: "advanced", ...toggle, hint: "Take fewer steps if that is needed to be done in time." },

  strength: { label: "Change", place: "picture", step: 0.05, least: 0, most: 1, usual: 0.7, always: true, hint: "How much of the picture is made anew. 1 is all of it." },
  composite: { label: "Keep the rest exactly", place: "picture", ...toggle, hint: "What is not painted over comes out pixel by pixel as it went in." },
  image: { label: "Picture" },
  mask: { label: "Painted over" },
  image_sha256: { label: "Hash of the picture" },
  mask_sha256: { label: "Hash of what is painted over" },
  pinned: { label: "Pinned tokens" },
  preview: { label: "Previews" },
  webhook_url: { label: "Webhook" },
};


/** "s 2.5", "sampler purity": a value as a heading. */
export function heading(name, value) {
  const { symbol, label } = FIELDS[name];
  return `${symbol ?? label.toLowerCase()} ${value}`;
}
