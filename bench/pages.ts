/** The parts of pages that are made from results: what lies between the markers is never typed. */
import { diskText, machineText } from './machine.ts';
import { caseTable, goalsTable } from './report.ts';
import type { ResultLine } from './results.ts';

const BEGIN = '<!-- bench:begin -->';
const END = '<!-- bench:end -->';

/** The pages, and what stands between the markers of each. */
export const PAGES: Readonly<Record<string, (results: readonly ResultLine[]) => string>> = {
  'README.md': (results) => `${goalsTable(results)}\n\n${measuredAt(results)}`,
  'docs/performance.md': (results) =>
    [`## The goals\n\n${measuredAt(results)}\n\n${goalsTable(results)}`, ...casesOf(results)].join('\n\n'),
};

/** The page with what these results make of the part between its markers. */
export function filled(page: string, text: string, content: string): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${page} has no place for results: ${BEGIN} … ${END}`);
  return `${text.slice(0, begin + BEGIN.length)}\n${content}\n${text.slice(end)}`;
}

function measuredAt(results: readonly ResultLine[]): string {
  const runs = new Set(results.map((line) => `${line.date.slice(0, 10)}: ${machineText(line)}`));
  return `Medians of rounds in turns (least to most). ${[...runs].join('; ')}; ${diskText(results)}.`;
}

function casesOf(results: readonly ResultLine[]): string[] {
  const cases = new Map(results.map((line) => [line.case, line.title]));
  return [...cases].map(([name, title]) => {
    const lines = results.filter((line) => line.case === name);
    return `### ${name}\n\n${title[0]?.toUpperCase()}${title.slice(1)}.\n\n${caseTable(lines)}`;
  });
}
