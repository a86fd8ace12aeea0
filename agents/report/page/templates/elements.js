"use strict";

// Elements and wording that all parts of the page share.

const byId = (id) => document.getElementById(id);

// Texts of patients enter the page through this function alone, as text nodes.
const el = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
};

const signed = (value, digits = 2) => (value > 0 ? "+" : value < 0 ? "-" : "±") + Math.abs(value).toFixed(digits);
const ordinal = (n) => n + (n % 100 > 10 && n % 100 < 14 ? "th" : (["th", "st", "nd", "rd"][n % 10] ?? "th"));
const percent = (share) => `${Number((100 * share).toPrecision(2))} %`;
const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

// Whether a change is good, and the sign that says so without color.
const kindOf = (change, better = 1) => (change * better > 0 ? "good" : change * better < 0 ? "bad" : "same");
const SIGNS = { good: "▲", bad: "▼", same: "●" };
