// One patient: the prompt with its deleted words, the replies beside the doctor's, and the scores.

// The words of a text that say something: short ones of Latin letters, such as "and", match anywhere.
const segments = (text) =>
  "Segmenter" in Intl
    ? [...new Intl.Segmenter(undefined, { granularity: "word" }).segment(text)]
    : text.split(/([\p{L}\p{N}]+)/u).map((segment) => ({ segment, isWordLike: /[\p{L}\p{N}]/u.test(segment) }));
const says = ({ segment, isWordLike }) =>
  isWordLike && (segment.length > 3 || /\p{N}|[^\p{Script=Latin}]/u.test(segment));
const wordsOf = (texts) =>
  new Set(texts.flatMap(segments).filter(says).map(({ segment }) => segment.toLocaleLowerCase()));

// A text in which the words that other texts have too are marked.
const marked = (text, others) => {
  const parts = [];
  for (const each of segments(text)) {
    if (says(each) && others.has(each.segment.toLocaleLowerCase())) parts.push(el("mark", {}, each.segment));
    else if (typeof parts.at(-1) === "string") parts[parts.length - 1] += each.segment;
    else parts.push(each.segment);
  }
  return el("p", { dir: "auto" }, ...parts);
};

const NAMED = ["asserted", "possible"];

// The conditions that replies mention, each right or wrong.
const conditionChips = ({ data }, replies, label) => {
  if (!data.named || !replies.length) return null;
  const said = new Map();
  for (const reply of replies) {
    const flat = data.named[reply];
    for (let i = 0; i < flat.length; i += 2) said.set(flat[i], flat[i + 1]);
  }
  const chips = [...said].map(([name, status]) => {
    if (!NAMED.includes(status)) {
      return el("span", { class: "chip same" }, `○ ${status === "denied" ? "denied" : "mentioned"}: ${name}`);
    }
    const [kind, sign] = name === label ? ["good", "✓ right"] : ["bad", "✗ wrong"];
    return el("span", { class: `chip ${kind}` }, `${sign}: ${name}${status === "possible" ? ", as possible" : ""}`);
  });
  if (label && !NAMED.includes(said.get(label))) {
    chips.unshift(el("span", { class: "chip same" }, "○ right condition not named"));
  }
  return el("div", { class: "chips" }, ...chips);
};

const replyPanel = (model, title, replies, others, { label = null, now = false, cut = false, error = "" } = {}) => {
  const texts = model.textsOf(replies);
  const own = wordsOf(texts);
  const shared = [...own].filter((word) => others.has(word)).length;
  const meta = `${shared} of ${counted(own.size, "different word")} marked${cut ? " · cut at the limit on new tokens" : ""}`;
  return el(
    "section",
    { class: now ? "panel now" : "panel", lang: model.data.language },
    el("h4", {}, title),
    ...texts.map((text) => marked(text, others)),
    error ? el("p", { class: "bad" }, `No reply: ${error}`) : null,
    label === null ? null : conditionChips(model, replies, label),
    texts.length ? el("div", { class: "meta" }, meta) : null,
  );
};

// The words of the prompt as buttons; those that are ticked off are struck out.
const wordButtons = (model, patient, deleted, run, toggle) => {
  const order = new Map((run?.deleted ?? []).map((slot, i) => [slot, i]));
  const others = model.patients.filter((other) => other.run.agent);
  const describe = (slot) => {
    const i = order.get(slot);
    const parts = [`position ${slot + 1}, ${patient.roles[slot]}`];
    if (i !== undefined) {
      const probability = run.probabilities[i];
      const chance = probability === null ? "" : `, with probability ${percent(probability)}`;
      parts.push(`deleted ${ordinal(i + 1)}${chance}`);
    } else if (deleted.has(slot)) parts.push("deleted");
    const n = others.filter((other) => other.run.agent.deleted.includes(slot)).length;
    parts.push(`the agent deletes this position for ${n} of ${counted(others.length, "patient")}`);
    return parts.join(" · ");
  };
  return patient.words.flatMap((word, slot) => {
    const inform = () => {
      byId("info").textContent = `“${word}”: ${describe(slot)}`;
    };
    const button = el(
      "button",
      {
        type: "button",
        class: `word ${patient.roles[slot]}`,
        "aria-pressed": deleted.has(slot),
        tabindex: slot ? -1 : 0,
        "data-slot": slot,
        title: describe(slot),
        onclick: () => toggle(slot),
        onmouseenter: inform,
        onfocus: inform,
      },
      word,
      order.has(slot) ? el("sup", {}, String(order.get(slot) + 1)) : null,
    );
    return [button, patient.spaces.length ? patient.spaces[slot] : " "];
  });
};

const distance = (one, other) =>
  [...one].filter((slot) => !other.has(slot)).length + [...other].filter((slot) => !one.has(slot)).length;

// What is known of the prompt: whose it is, that its reply was kept, or that nobody asked it.
const stateLine = (model, patient, deleted, control, found, go) => {
  const line = (...parts) => el("div", { class: "state", id: "state" }, ...parts);
  const gone = `${counted(deleted.size, "word")} deleted`;
  if (control) return line(`Control “${model.variant(control).title}”: its reply needs no prompt, which is untouched here.`);
  if (found?.run) return line(`Kept reply and score: the prompt of “${model.titleOf(found.run)}”, ${gone}.`);
  if (found) return line(`Kept reply without a score: the LLM was asked, but no evaluation has this prompt, ${gone}.`);
  const near = [...model.askedOf(patient).values()]
    .map((asked) => ({ asked, away: distance(asked.deleted, deleted) }))
    .sort((a, b) => a.away - b.away)
    .slice(0, 3)
    .map(({ asked, away }) => {
      const name = asked.run ? model.titleOf(asked.run) : counted(asked.deleted.size, "deletion");
      return el("button", { type: "button", onclick: () => go(asked.deleted) }, `${name}, ${counted(away, "word")} away`);
    });
  const text = ` The run has no reply to this prompt (${gone}). Nearest kept:`;
  const missing = line(el("span", {}, el("b", {}, "Not asked."), text), ...near);
  missing.classList.add("missing");
  return missing;
};

const shown = (value, { scale, digits, name }) => {
  if (value === null) return "-";
  if (digits === null) return value === 0 ? "no" : value === 1 ? "yes" : `${(100 * value).toFixed(0)} %`;
  return (scale * value).toFixed(digits);
};

const componentTable = (model, before, now) => {
  const rows = model.data.metrics.map((metric) => {
    const [old, value] = [model.score(before, metric.name), model.score(now, metric.name)];
    const change = old === null || value === null ? null : value - old;
    const kind = change === null ? "same" : kindOf(change, metric.better);
    const turned = change > 0 ? "gained" : change < 0 ? "lost" : "-";
    const moved = change === null ? "-" : metric.digits === null ? turned : signed(metric.scale * change, metric.digits);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, metric.name.replaceAll("_", " ")),
      el("td", { class: "n" }, shown(old, metric)),
      el("td", { class: "n" }, shown(value, metric)),
      el("td", { class: `n ${kind}` }, metric.better && change ? `${SIGNS[kind]} ${moved}` : moved),
      el("td", { class: "what" }, metric.what),
    );
  });
  const heads = ["component", "untouched", "this reply", "change"].map((head, i) =>
    el("th", { scope: "col", class: i ? "n" : "" }, head),
  );
  return el(
    "table",
    { id: "components" },
    el("thead", {}, el("tr", {}, ...heads, el("th", { scope: "col" }, "what it is"))),
    el("tbody", {}, ...rows),
  );
};

const patientHead = (model, patient, change) => {
  const { main } = model;
  const kind = change === null ? "same" : kindOf(change);
  const unit = `${main.scale === 100 ? " points" : ""} of ${main.name === "reward" ? "the reward" : "F1"}`;
  const right = patient.label === patient.predicted;
  const peers = patient.peers.map(([label, n]) => `${n} ${label}`).join(", ");
  return [
    el(
      "div",
      { class: "head" },
      el("h2", {}, patient.id),
      change === null ? null : el("span", { class: `verdict ${kind}` }, `${SIGNS[kind]} ${signed(main.scale * change, main.digits)}${unit}`),
    ),
    el(
      "p",
      { class: "facts" },
      "Condition ",
      el("b", {}, patient.label || "unknown"),
      " · predicted ",
      el("b", {}, patient.predicted),
      patient.label ? el("span", { class: right ? "good" : "bad" }, right ? " ✓ right" : " ✗ wrong") : null,
      peers ? ` · peers: ${peers}` : null,
    ),
  ];
};
