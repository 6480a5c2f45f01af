/** Results as JSON lines, one for each contestant of a case. */
import { appendFileSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Machine } from './machine.ts';
import type { Result } from './summary.ts';

export interface ResultLine extends Machine, Result {
  /** When the run began, in ISO 8601: lines with the same moment were measured in turns, and can be compared. */
  readonly date: string;
}

export function append(file: string, lines: readonly ResultLine[]): void {
  mkdirSync(dirname(file), { recursive: true });
  appendFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
}

/** The newest file of a folder: of each case the last run. */
export function newest(folder: string): readonly ResultLine[] {
  const file = readdirSync(folder)
    .filter((name) => name.endsWith('.jsonl'))
    .sort()
    .at(-1);
  if (file === undefined) throw new Error(`no results in ${folder}: npm run bench -- --json makes some`);
  const lines = readFileSync(join(folder, file), 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as ResultLine);
  const last = new Map<string, string>();
  for (const line of lines) last.set(line.case, line.date);
  return lines.filter((line) => last.get(line.case) === line.date);
}
