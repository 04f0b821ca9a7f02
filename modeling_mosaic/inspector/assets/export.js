// What the reader takes away: the present view as SVG, PNG or CSV, made from the numbers that are shown.

import { s } from "inspector/dom";
import { css, ink } from "inspector/colours";
import { visible } from "inspector/words";

const STYLES = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "font-family",
  "font-size",
  "font-weight",
  "text-anchor",
  "opacity",
  "paint-order",
];

/** A copy of a drawing that needs no style sheet. */
export function standalone(drawing) {
  const host = document.createElement("div");
  host.className = "offstage";
  const copy = drawing.cloneNode(true);
  host.append(copy);
  document.body.append(host);
  const box = copy.viewBox.baseVal;
  const paper = getComputedStyle(document.documentElement).getPropertyValue("--paper").trim();
  for (const element of [copy, ...copy.querySelectorAll("*")]) {
    const style = getComputedStyle(element);
    for (const name of STYLES) element.style.setProperty(name, style.getPropertyValue(name));
    element.removeAttribute("class");
  }
  copy.prepend(s("rect", { width: box.width, height: box.height, fill: paper }));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  host.remove();
  return new XMLSerializer().serializeToString(copy);
}

/** Several drawings below each other, under a title. */
export function stacked(title, drawings) {
  let height = 40;
  const width = Math.max(320, ...drawings.map((drawing) => drawing.viewBox.baseVal.width)) + 32;
  const parts = drawings.map((drawing) => {
    const copy = drawing.cloneNode(true),
      { width: w, height: h } = drawing.viewBox.baseVal;
    for (const [name, value] of Object.entries({ x: 16, y: height, width: w, height: h }))
      copy.setAttribute(name, value);
    height += h + 18;
    return copy;
  });
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart" },
    s("text", { x: 16, y: 24, class: "title" }, title),
    parts,
  );
}

const shown = (value) =>
  typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value ?? "");

/** A table as a drawing; numbers stand to the right. */
export function tableFigure({ columns, rows }) {
  const cells = [columns, ...rows.map((row) => row.map((value) => visible(shown(value)).slice(0, 90)))];
  const widths = columns.map(
    (_, c) => 14 + 6.6 * Math.max(...cells.map((row) => Array.from(String(row[c])).length)),
  );
  const starts = widths.map((_, c) => widths.slice(0, c).reduce((sum, w) => sum + w, 0));
  const isNumber = columns.map((_, c) => rows.every((row) => typeof row[c] === "number"));
  const total = starts.at(-1) + widths.at(-1);
  return s(
    "svg",
    {
      viewBox: `0 0 ${total} ${22 * cells.length + 6}`,
      width: total,
      height: 22 * cells.length + 6,
      class: "chart",
    },
    cells.map((row, r) =>
      row.map((text, c) =>
        s(
          "text",
          {
            x: isNumber[c] ? starts[c] + widths[c] - 10 : starts[c],
            y: 22 * r + 16,
            class: `${r ? "cellText" : "cellText strong"} ${isNumber[c] ? "end" : ""}`,
          },
          text,
        ),
      ),
    ),
  );
}

/** The coloured text as a drawing, in lines of a given width. */
export function textFigure(tokens, colourOf, width = 760) {
  const measure = document.createElement("canvas").getContext("2d");
  measure.font = "16px Georgia, 'DejaVu Serif', serif";
  let x = 0,
    y = 0;
  const parts = [];
  tokens.forEach((token, i) => {
    const text = visible(token),
      size = measure.measureText(text).width;
    if (x + size > width && x > 0) {
      x = 0;
      y += 28;
    }
    const colour = colourOf(i);
    if (colour) parts.push(s("rect", { x, y, width: size, height: 24, fill: css(colour) }));
    parts.push(
      s(
        "text",
        { x, y: y + 17, class: "prose", "xml:space": "preserve", fill: colour ? ink(colour) : null },
        text,
      ),
    );
    x += size;
    if (token.includes("\n")) {
      x = 0;
      y += 28;
    }
  });
  return s("svg", { viewBox: `0 0 ${width} ${y + 32}`, width, height: y + 32, class: "chart" }, parts);
}

/** Comma-separated values; texts are quoted, and none can be taken for a formula. */
export function csv({ columns, rows }) {
  const cell = (value) => {
    if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
    const text = String(value ?? "");
    return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** An SVG text as a picture with twice as many pixels, less where it is very large. */
export async function png(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const scale = Math.min(
    2,
    16000 / Math.max(image.width, image.height),
    Math.sqrt(60e6 / (image.width * image.height)),
  );
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
