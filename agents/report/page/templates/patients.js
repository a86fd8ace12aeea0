// Single patients: a list that can be searched, filtered and sorted, and the patient who is chosen.
(() => {
  const source = byId("data");
  if (!source) return;
  const model = modelOf(JSON.parse(source.textContent));
  const { patients, variants, main, score, changeOf } = model;
  const state = { patient: null, deleted: new Set(), control: null, listed: [] };
  const inputs = Object.fromEntries(["search", "system", "condition", "outcome", "sort"].map((id) => [id, byId(id)]));
  const list = byId("list");
  const detail = byId("detail");

  // Of several replies to a prompt, the share that names a condition counts.
  const moved = (metric, sign) => (patient, variant) => {
    const [before, after] = [score(patient.run.keep_all, metric), score(patient.run[variant], metric)];
    return before !== null && after !== null && sign * (after - before) > 0;
  };
  const OUTCOMES = {
    all: () => true,
    "score rose": (patient, variant) => changeOf(patient, variant) > 0,
    "score fell": (patient, variant) => changeOf(patient, variant) < 0,
    "score unchanged": (patient, variant) => changeOf(patient, variant) === 0,
    "right condition gained": moved("diagnosis_named", 1),
    "right condition lost": moved("diagnosis_named", -1),
    "wrong condition gained": moved("wrong_diagnosis_named", 1),
    "wrong condition lost": moved("wrong_diagnosis_named", -1),
    "prediction wrong": (patient) => patient.label !== patient.predicted,
    "reply missing": (patient, variant) => Boolean(patient.run[variant]?.error),
  };
  const last = (value) => value ?? -Infinity;
  const SORTS = {
    "largest fall": (a, b, variant) => (changeOf(a, variant) ?? Infinity) - (changeOf(b, variant) ?? Infinity),
    "largest rise": (a, b, variant) => last(changeOf(b, variant)) - last(changeOf(a, variant)),
    "score after": (a, b, variant) => last(score(b.run[variant], main.name)) - last(score(a.run[variant], main.name)),
    condition: (a, b) => a.label.localeCompare(b.label),
    id: (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }),
    "order of the run": () => 0,
  };

  const textOf = (patient) => {
    const runs = patient.runs.filter((run) => !variants[run.variant].control);
    patient.text ??= [
      ...[patient.id, patient.label, patient.predicted, model.promptOf(patient, new Set())],
      ...model.textsOf([patient.reference, ...runs.flatMap((run) => run.replies)]),
    ].join("\n").toLocaleLowerCase();
    return patient.text;
  };

  const meter = (change, most) => {
    const width = most ? (50 * Math.abs(change)) / most : 0;
    const bar = el("i");
    bar.style.width = `${width}%`;
    bar.style.left = `${change < 0 ? 50 - width : 50}%`;
    return el("span", { class: "meter", "aria-hidden": "true" }, bar);
  };

  const listItem = (patient, change, most) => {
    const kind = change === null ? "same" : kindOf(change);
    return el(
      "li",
      { role: "option", id: `patient-${patient.position}`, onclick: () => select(patient) },
      el("span", { class: "id" }, patient.id),
      el("span", { class: "label" }, patient.label || "condition unknown"),
      el(
        "span",
        { class: `delta ${kind}` },
        change === null ? "no reply" : `${SIGNS[kind]} ${signed(main.scale * change, main.digits)}`,
        change === null ? null : meter(change, most),
      ),
    );
  };

  const showList = () => {
    const variant = inputs.system.value;
    const wanted = inputs.search.value.trim().toLocaleLowerCase();
    state.listed = patients
      .filter((patient) => !inputs.condition.value || patient.label === inputs.condition.value)
      .filter((patient) => OUTCOMES[inputs.outcome.value](patient, variant))
      .filter((patient) => textOf(patient).includes(wanted))
      .sort((a, b) => SORTS[inputs.sort.value](a, b, variant) || a.position - b.position);
    const most = Math.max(...patients.map((patient) => Math.abs(changeOf(patient, variant) ?? 0)));
    list.replaceChildren(...state.listed.map((patient) => listItem(patient, changeOf(patient, variant), most)));
    byId("count").textContent = `${state.listed.length} of ${counted(patients.length, "patient")}`;
    markChosen();
  };

  const markChosen = () => {
    const chosen = `patient-${state.patient?.position}`;
    for (const item of list.children) item.setAttribute("aria-selected", item.id === chosen);
    list.setAttribute("aria-activedescendant", byId(chosen) ? chosen : "");
  };

  // Scrolls the list alone: scrollIntoView would move the page as well.
  const scrollToChosen = () => {
    const item = byId(`patient-${state.patient.position}`);
    if (!item) return;
    if (item.offsetTop < list.scrollTop) list.scrollTop = item.offsetTop;
    const below = item.offsetTop + item.offsetHeight - list.clientHeight;
    if (below > list.scrollTop) list.scrollTop = below;
  };

  const select = (patient) => {
    state.patient = patient;
    markChosen();
    scrollToChosen();
    setVariant(inputs.system.value);
    history.replaceState(null, "", `#patient=${encodeURIComponent(patient.id)}`);
  };

  const setVariant = (name) => {
    const run = state.patient.run[name];
    const { control } = model.variant(name);
    state.control = control && run ? name : null;
    state.deleted = new Set(control || !run ? [] : run.deleted);
    showDetail();
  };

  const step = (by) => {
    const at = state.listed.indexOf(state.patient);
    const next = state.listed[Math.min(Math.max(at + by, 0), state.listed.length - 1)];
    if (next) select(next);
  };

  const toggle = (slot) => {
    if (!state.deleted.delete(slot)) state.deleted.add(slot);
    state.control = null;
    showDetail();
    detail.querySelector(`[data-slot="${slot}"]`).focus();
  };

  const go = (deleted) => {
    state.deleted = new Set(deleted);
    showDetail();
  };

  const showDetail = () => {
    const { patient, deleted, control } = state;
    const before = patient.run.keep_all;
    const found = control
      ? { run: patient.run[control], replies: patient.run[control].replies }
      : model.askedOf(patient).get(model.promptOf(patient, deleted));
    const name = found?.run ? variants[found.run.variant].name : null;
    const failed = found ? null : patient.runs.find((run) => run.error && distance(new Set(run.deleted), deleted) === 0);
    const reference = wordsOf(model.textsOf([patient.reference]));
    const panels = [
      replyPanel(model, "Reply to the untouched prompt", before.replies, reference, {
        ...{ label: patient.label, now: name === "keep_all", cut: before.cut, error: before.error },
      }),
    ];
    if (found && name !== "keep_all") {
      const title = control ? `Control: ${control}` : found.run ? `Reply after the edits: ${model.titleOf(found.run)}` : "Kept reply";
      const options = { label: patient.label, now: true, cut: found.run?.cut };
      panels.push(replyPanel(model, title, found.replies, reference, options));
    } else if (failed && failed !== before) {
      panels.push(replyPanel(model, model.titleOf(failed), [], reference, { error: failed.error }));
    }
    const own = wordsOf(model.textsOf((found ?? before).replies));
    panels.push(replyPanel(model, "The doctor's reply", [patient.reference], own));
    const buttons = variants
      .filter((variant) => patient.run[variant.name])
      .map((variant) =>
        el(
          "button",
          {
            type: "button",
            class: variant.control ? "control" : "",
            "aria-pressed": variant.name === name,
            "data-variant": variant.name,
            onclick: () => setVariant(variant.name),
          },
          variant.title,
        ),
      );
    const edits = control ? null : found?.run;
    detail.replaceChildren(
      ...patientHead(model, patient, found?.run?.reward ?? null),
      el("div", { class: "variants", role: "group", "aria-label": "Variants and controls" }, ...buttons),
      el("h3", {}, "Prompt: tick words off or on, and see the reply to what is left"),
      el("div", { class: "prompt", id: "prompt", lang: model.data.language, dir: "auto" }, ...wordButtons(model, patient, deleted, edits, toggle)),
      el("p", { class: "info", id: "info" }, "Small numbers: the order of deletion. Point at a word for its role and its probability."),
      stateLine(model, patient, deleted, control, found, go),
      el("div", { class: "panels" }, ...panels),
      el("h3", {}, "Scores"),
      el("div", { class: "scroll" }, componentTable(model, before, found?.run)),
      el("details", {}, el("summary", {}, "The prompt as text"), el("p", { class: "prompt", lang: model.data.language, dir: "auto" }, model.promptOf(patient, deleted))),
    );
  };

  // --- Keys

  detail.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by && event.target.dataset.slot !== undefined) {
      event.preventDefault();
      const forward = getComputedStyle(event.target.parentElement).direction === "rtl" ? -1 : 1;
      detail.querySelector(`[data-slot="${Number(event.target.dataset.slot) + forward * by}"]`)?.focus();
    }
  });
  list.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    }
  });
  const KEYS = {
    j: () => step(1),
    k: () => step(-1),
    u: () => setVariant("keep_all"),
    a: () => setVariant("agent"),
    "/": () => inputs.search.focus(),
    Escape: () => {
      inputs.search.value = "";
      showList();
    },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select")) {
      if (event.key !== "Escape") return;
      event.target.blur();
      if (event.target === inputs.search) KEYS.Escape();
    } else if (KEYS[event.key]) {
      event.preventDefault();
      KEYS[event.key]();
      byId("explorer").scrollIntoView({ block: "nearest" });
    }
  });

  // --- Start

  const option = (value, text = value) => el("option", { value }, text);
  const others = variants.filter(({ name }) => name !== "keep_all");
  inputs.system.append(...others.map(({ name, title }) => option(name, title)));
  const conditions = [...new Set(patients.map(({ label }) => label))].filter(Boolean).sort();
  inputs.condition.append(option("", "all"), ...conditions.map((label) => option(label)));
  inputs.outcome.append(...Object.keys(OUTCOMES).map((name) => option(name)));
  inputs.sort.append(...Object.keys(SORTS).map((name) => option(name)));
  inputs.system.value = "agent";
  for (const input of Object.values(inputs)) input.addEventListener("input", showList);
  inputs.system.addEventListener("input", () => setVariant(inputs.system.value));

  const decoded = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  const named = () => {
    const [, id] = /^#patient=(.*)$/.exec(location.hash) ?? [];
    return id === undefined ? undefined : patients.find((patient) => [id, decoded(id)].includes(patient.id));
  };
  addEventListener("hashchange", () => {
    const patient = named();
    if (patient && patient !== state.patient) select(patient);
  });

  byId("explorer").hidden = false;
  showList();
  const wanted = named();
  state.patient = wanted ?? state.listed[0];
  markChosen();
  setVariant("agent");
  if (wanted) byId("patients").scrollIntoView();
})();
