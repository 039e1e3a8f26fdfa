/**
 * Line plots as SVG text: axes, ticks, legend, named moments, a tooltip for each point. Owns: that drawing. Does not own: what is
 * plotted (report-html). Pure; needs nothing from a network.
 */

export interface PlotLine {
  name: string;
  /** [x, y]; a null y leaves a gap. */
  points: readonly (readonly [number, number | null])[];
}

export interface Plot {
  title: string;
  xName: string;
  yName: string;
  lines: readonly PlotLine[];
  /** Logarithmic y; values at or below 0 are left out. */
  isLogY?: boolean;
  /** Places and texts of the x axis; else they are chosen. */
  xTicks?: readonly (readonly [number, string])[];
  /** A place of the x axis in words, for tooltips; else its number and the axis' name. */
  xText?: (x: number) => string;
  /** Moments with names, drawn across: where something else begins. */
  moments?: readonly (readonly [number, string])[];
}

const WIDTH = 720;
const HEIGHT = 260;
const LEFT = 64;
const RIGHT = 16;
const TOP = 46;
const BOTTOM = 40;
/** Of a letter of the legend, about. */
const LETTER = 6.5;
/** Told apart by people who see colours differently too. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00'];
/** More points than pixels help nobody. */
const TOOLTIPS_MAX = 300;

export function escapeText(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

interface Scale {
  at(value: number): number;
  ticks: readonly (readonly [number, string])[];
}

/** 1, 2 or 5 times a power of ten, some five of them up to `max`. */
function stepFor(span: number): number {
  const raw = span / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * ([1, 2, 5].find((m) => m * power >= raw) ?? 10);
}

export function tickText(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 10_000) return `${Number((value / 1e3).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
}

function linearScale(min: number, max: number, from: number, to: number, isExact = false): Scale {
  const top = max > min ? max : min + 1;
  const step = stepFor(top - min);
  // Up to a round number, or not beyond the last value.
  const end = isExact ? top : Math.ceil(top / step) * step;
  const ticks: [number, string][] = [];
  for (let i = 0; min + i * step <= end + step / 1000; i++)
    ticks.push([min + i * step, tickText(min + i * step)]);
  return { at: (value) => from + ((value - min) / (end - min)) * (to - from), ticks };
}

/** From and to 1, 2 or 5 times a power of ten; of many powers only they have a tick. */
function logScale(min: number, max: number, from: number, to: number): Scale {
  const steps: number[] = [];
  for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)) + 1; power++)
    steps.push(...[1, 2, 5].map((m) => m * 10 ** power));
  const first = Math.max(
    0,
    steps.findLastIndex((step) => step <= min * 1.0001),
  );
  const last = Math.max(
    first + 1,
    steps.findIndex((step) => step >= max * 0.9999),
  );
  const shown = steps.slice(first, last + 1);
  const isWide = shown.length > 8;
  const ticks = shown
    .filter((step) => !isWide || Math.abs(Math.log10(step) - Math.round(Math.log10(step))) < 0.01)
    .map((step) => [step, tickText(step)] as const);
  const [low, high] = [Math.log10(shown[0]), Math.log10(shown[shown.length - 1])];
  return { at: (value) => from + ((Math.log10(value) - low) / (high - low)) * (to - from), ticks };
}

/** Empty when there is nothing to draw. */
export function plotSvg(plot: Plot): string {
  const shows = (y: number | null): y is number => y !== null && (!plot.isLogY || y > 0);
  const all = plot.lines.flatMap(({ points }) => points.filter(([, y]) => shows(y))) as [number, number][];
  if (all.length === 0) return '';
  const xs = all.map(([x]) => x);
  const ys = all.map(([, y]) => y);
  const xMax = xs.reduce((a, b) => Math.max(a, b));
  const yMax = ys.reduce((a, b) => Math.max(a, b));
  const x = linearScale(0, xMax, LEFT, WIDTH - RIGHT, true);
  const y = plot.isLogY
    ? logScale(
        ys.reduce((a, b) => Math.min(a, b)),
        yMax,
        HEIGHT - BOTTOM,
        TOP,
      )
    : linearScale(0, yMax, HEIGHT - BOTTOM, TOP);
  const parts = [
    `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeText(plot.title)}" xmlns="http://www.w3.org/2000/svg">`,
    `<text x="${LEFT}" y="14" class="title">${escapeText(plot.title)}</text>`,
    ...axes(plot, x, y),
    ...moments(plot, x, xMax),
    ...plot.lines.flatMap((line, i) => drawn(plot, line, i, x, y, shows)),
    ...legend(plot),
    '</svg>',
  ];
  return parts.join('\n');
}

function axes(plot: Plot, x: Scale, y: Scale): string[] {
  const parts: string[] = [];
  for (const [value, text] of y.ticks) {
    const at = y.at(value).toFixed(1);
    parts.push(`<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${at}" y2="${at}" class="grid"/>`);
    parts.push(`<text x="${LEFT - 6}" y="${at}" dy="4" text-anchor="end">${escapeText(text)}</text>`);
  }
  for (const [value, text] of plot.xTicks ?? x.ticks) {
    const at = x.at(value);
    if (at > WIDTH - RIGHT + 1) continue;
    parts.push(
      `<text x="${at.toFixed(1)}" y="${HEIGHT - BOTTOM + 16}" text-anchor="middle">${escapeText(text)}</text>`,
    );
  }
  parts.push(
    `<text x="${WIDTH - RIGHT}" y="${HEIGHT - 6}" text-anchor="end" class="name">${escapeText(plot.xName)}</text>`,
  );
  parts.push(`<text x="${LEFT}" y="${TOP - 14}" class="name">${escapeText(plot.yName)}</text>`);
  return parts;
}

function drawn(
  plot: Plot,
  line: PlotLine,
  index: number,
  x: Scale,
  y: Scale,
  shows: (y: number | null) => y is number,
): string[] {
  const colour = COLOURS[index % COLOURS.length];
  const parts: string[] = [];
  let path = '';
  let isOpen = false;
  const every = Math.ceil(line.points.length / TOOLTIPS_MAX);
  line.points.forEach(([px, py], i) => {
    if (!shows(py)) {
      isOpen = false;
      return;
    }
    const [atX, atY] = [x.at(px).toFixed(1), y.at(py).toFixed(1)];
    path += `${isOpen ? 'L' : 'M'}${atX} ${atY}`;
    isOpen = true;
    if (i % every !== 0) return;
    const place = plot.xText?.(px) ?? `${tickText(px)} ${plot.xName}`;
    const tip = `${line.name}: ${tickText(py)} ${plot.yName}, ${place}`;
    parts.push(
      `<circle cx="${atX}" cy="${atY}" r="2" fill="${colour}"><title>${escapeText(tip)}</title></circle>`,
    );
  });
  parts.unshift(`<path d="${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>`);
  return parts;
}

/** From the right edge, in the order of the lines. */
function legend({ lines }: Plot): string[] {
  const parts: string[] = [];
  const widths = lines.map(({ name }) => 14 + name.length * LETTER + 14);
  let at = WIDTH - RIGHT - widths.reduce((sum, width) => sum + width, 0);
  lines.forEach(({ name }, i) => {
    parts.push(
      `<rect x="${at.toFixed(0)}" y="5" width="10" height="10" fill="${COLOURS[i % COLOURS.length]}"/>`,
    );
    parts.push(`<text x="${(at + 14).toFixed(0)}" y="14">${escapeText(name)}</text>`);
    at += widths[i];
  });
  return parts;
}

function moments({ moments: named = [] }: Plot, x: Scale, xMax: number): string[] {
  return named
    .filter(([moment]) => moment <= xMax)
    .flatMap(([moment, name]) => {
      const at = x.at(Math.max(0, moment)).toFixed(1);
      return [
        `<line x1="${at}" x2="${at}" y1="${TOP}" y2="${HEIGHT - BOTTOM}" class="moment"/>`,
        `<text x="${at}" dx="3" y="${TOP - 3}" class="name">${escapeText(name)}</text>`,
      ];
    });
}
