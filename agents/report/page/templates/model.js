// The patients of a run, from the data that the page carries; see agents/report/page/patients.py.

const ROLES = { b: "background", s: "self", p: "peer", i: "instruction" };

const modelOf = (data) => {
  const variants = data.variants.map(([name, title, control]) => ({ name, title, control }));
  const metricOf = Object.fromEntries(data.metrics.map(({ name }, number) => [name, number]));
  const patients = data.patients.map((raw, position) => ({
    ...raw,
    position,
    label: data.texts[raw.label],
    predicted: data.texts[raw.predicted],
    peers: raw.peers.map(([label, n]) => [data.texts[label], n]),
    words: raw.words.map((word) => data.texts[word]),
    spaces: raw.spaces.map((space) => data.texts[space]),
    roles: [...raw.roles].map((letter) => ROLES[letter]),
    run: Object.fromEntries(raw.runs.map((run) => [variants[run.variant].name, run])),
  }));

  // The prompt that is left when some slots are deleted, as the environment joins it.
  const promptOf = (patient, deleted) => {
    const left = patient.words.map((_, slot) => slot).filter((slot) => !deleted.has(slot));
    const space = (slot) => (patient.spaces.length ? patient.spaces[slot] : " ");
    return left.map((slot, i) => patient.words[slot] + (i < left.length - 1 ? space(slot) : "")).join("");
  };

  // Everything that was asked about a patient, by prompt: the slots deleted, the replies, and the run with its scores.
  const askedOf = (patient) => {
    if (!patient.asked) {
      patient.asked = new Map();
      const add = (deleted, replies, run) => patient.asked.set(promptOf(patient, deleted), { deleted, replies, run });
      for (const [slots, replies] of patient.kept) add(new Set(slots), replies, null);
      for (const run of [...patient.runs].reverse()) {
        if (!variants[run.variant].control && !run.error) add(new Set(run.deleted), run.replies, run);
      }
    }
    return patient.asked;
  };

  return {
    data,
    variants,
    patients,
    promptOf,
    askedOf,
    main: data.metrics[0] ?? { name: "", scale: 100 },
    variant: (name) => variants.find((each) => each.name === name),
    titleOf: (run) => variants[run.variant].title,
    score: (run, metric) => (run && metric in metricOf ? run.scores[metricOf[metric]] : null),
    changeOf: (patient, variant) => patient.run[variant]?.reward ?? null,
    textsOf: (replies) => replies.map((reply) => data.replies[reply]),
  };
};
