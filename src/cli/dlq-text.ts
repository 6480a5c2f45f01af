import { toJson } from '../dlq/index.ts';
import type { DeadLetter, DeadLetterGroup, DeadLetterSummary } from '../store/store.ts';
import { time } from './text.ts';
import { shown, textTable } from './text-table.ts';

/** Between the names of fields and what is in them. */
const GAP = 2;

/** A line for each entry. */
export function listText(entries: readonly DeadLetterSummary[], width: number): string {
  const columns = [
    { head: 'id', right: true },
    { head: 'died' },
    { head: 'table', maxWidth: 30 },
    { head: 'operation' },
    { head: 'key', maxWidth: 40 },
    { head: 'code' },
    { head: 'message' },
  ];
  const rows = entries.map(({ id, firstFailedAt, table, operation, key, errorCode, errorMessage }) => [
    String(id),
    timeText(firstFailedAt),
    table ?? '-',
    operation,
    key ?? '-',
    errorCode,
    errorMessage,
  ]);
  return rows.length === 0 ? 'no dead letters' : textTable(columns, rows, width);
}

/** A line for each group. */
export function summaryText(groups: readonly DeadLetterGroup[], width: number): string {
  const columns = [
    { head: 'entries', right: true },
    { head: 'bytes', right: true },
    { head: 'table', maxWidth: 30 },
    { head: 'operation' },
    { head: 'code' },
    { head: 'first' },
    { head: 'last' },
    { head: 'message' },
  ];
  const rows = groups.map((group) => [
    String(group.entries),
    String(group.bytes),
    group.table ?? '-',
    group.operation,
    group.errorCode,
    timeText(group.firstFailedAt),
    timeText(group.lastFailedAt),
    group.errorMessage,
  ]);
  return rows.length === 0 ? 'no dead letters' : textTable(columns, rows, width);
}

/** In the zone that --since and --until understand. */
function timeText(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/** All of an entry, a line for each field and more for the long ones. */
export function entryText(entry: DeadLetter): string {
  const { statement, payload, ...rest } = entry;
  const lines: [name: string, lines: readonly string[]][] = Object.entries(rest)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => [name, [name.endsWith('At') ? time(Number(value)) : String(value)]]);
  if (statement !== null) lines.push(['statement', statement.split('\n')]);
  lines.push(['payload', typeof payload === 'string' ? [payload] : toJson(payload, 2).split('\n')]);
  const indent = Math.max(...lines.map(([name]) => name.length)) + GAP;
  return lines.map(([name, text]) => name.padEnd(indent) + text.map(shown).join(`\n${' '.repeat(indent)}`)).join('\n');
}
