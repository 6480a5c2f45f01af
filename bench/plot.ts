/** Draws lines over a logarithmic axis as SVG, in colours that can be read on white and on black. */

export interface Panel {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly lines: readonly Line[];
}

export interface Line {
  readonly name: string;
  /** In rising order of x, which is above 0. */
  readonly points: readonly (readonly [x: number, y: number])[];
}

const WIDTH = 560;
const HEIGHT = 360;
const MARGIN = { left: 64, right: 20, top: 40, bottom: 84 } as const;
const PLOT_WIDTH = WIDTH - MARGIN.left - MARGIN.right;
const PLOT_HEIGHT = HEIGHT - MARGIN.top - MARGIN.bottom;
const COLOURS = ['#2f81f7', '#e8590c', '#2f9e44', '#a371f7'] as const;
const GREY = '#7d8590';

/** Side by side. */
export function plot(panels: readonly Panel[]): string {
  const width = WIDTH * panels.length;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${HEIGHT}" width="${width}" height="${HEIGHT}" `,
    `role="img" font-family="system-ui, sans-serif" font-size="12" fill="${GREY}">\n`,
    `<title>${escaped(panels.map(({ title }) => title).join('; '))}</title>\n`,
    ...panels.map((panel, i) => `<g transform="translate(${i * WIDTH} 0)">\n${draw(panel)}</g>\n`),
    '</svg>\n',
  ].join('');
}

function draw({ title, x, y, lines }: Panel): string {
  const points = lines.flatMap((line) => line.points);
  const first = Math.min(...points.map(([at]) => at));
  const last = Math.max(...points.map(([at]) => at));
  const step = niceStep(Math.max(...points.map(([, value]) => value)));
  const top = step * Math.ceil(Math.max(...points.map(([, value]) => value)) / step);

  const toX = (at: number) => MARGIN.left + (PLOT_WIDTH * Math.log(at / first)) / Math.log(last / first);
  const toY = (value: number) => MARGIN.top + PLOT_HEIGHT * (1 - value / top);
  const bottom = toY(0);

  const parts = [text(MARGIN.left, 20, title, 'font-size="14" font-weight="600"')];
  for (let value = 0; value <= top + step / 2; value += step) {
    const at = toY(value);
    parts.push(rule(MARGIN.left, at, WIDTH - MARGIN.right, at, value === 0 ? 1 : 0.25));
    parts.push(text(MARGIN.left - 8, at + 4, String(Number(value.toPrecision(3))), 'text-anchor="end"'));
  }
  for (const at of logTicks(first, last)) {
    parts.push(rule(toX(at), MARGIN.top, toX(at), bottom, 0.25));
    parts.push(text(toX(at), bottom + 18, short(at), 'text-anchor="middle"'));
  }
  parts.push(text(MARGIN.left + PLOT_WIDTH / 2, bottom + 38, x, 'text-anchor="middle"'));
  const middle = MARGIN.top + PLOT_HEIGHT / 2;
  parts.push(text(16, middle, y, `text-anchor="middle" transform="rotate(-90 16 ${middle})"`));

  let legend = MARGIN.left;
  for (const [i, line] of lines.entries()) {
    const colour = COLOURS[i % COLOURS.length];
    const path = line.points.map(([at, value]) => `${toX(at).toFixed(1)},${toY(value).toFixed(1)}`).join(' ');
    parts.push(`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2" stroke-linejoin="round"/>`);
    for (const [at, value] of line.points) {
      parts.push(`<circle cx="${toX(at).toFixed(1)}" cy="${toY(value).toFixed(1)}" r="2.5" fill="${colour}"/>`);
    }
    parts.push(`<rect x="${legend}" y="${HEIGHT - 21}" width="14" height="4" rx="2" fill="${colour}"/>`);
    parts.push(text(legend + 20, HEIGHT - 14, line.name));
    legend += 44 + line.name.length * 6.5;
  }
  return parts.map((part) => `  ${part}\n`).join('');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

function rule(x1: number, y1: number, x2: number, y2: number, opacity: number): string {
  const ends = [x1, y1, x2, y2].map((at) => at.toFixed(1));
  return `<line x1="${ends[0]}" y1="${ends[1]}" x2="${ends[2]}" y2="${ends[3]}" stroke="${GREY}" stroke-opacity="${opacity}"/>`;
}

/** 1, 2 or 5 times a power of ten, so that about five of them reach the top. */
function niceStep(top: number): number {
  const power = 10 ** Math.floor(Math.log10(top / 5));
  return ([1, 2, 5].find((n) => n * power >= top / 5) ?? 10) * power;
}

/** Powers of ten; where there are fewer than three in between, also twice and five times those. */
function logTicks(first: number, last: number): number[] {
  const multiples = last / first >= 100 ? [1] : [1, 2, 5];
  const ticks: number[] = [];
  for (let power = 10 ** Math.floor(Math.log10(first)); power <= last; power *= 10) {
    ticks.push(...multiples.map((n) => n * power).filter((at) => at >= first && at <= last));
  }
  return ticks;
}

function short(value: number): string {
  if (value >= 1e6) return `${value / 1e6} M`;
  return value >= 1e3 ? `${value / 1e3} k` : String(value);
}
