import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Database, type DatabaseStats, type Durability, type OpenOptions, open } from 'sluicedb';
import { systemClock } from '../../dist/base/clock.js';
import { settledWithin } from '../../dist/base/waiting.js';
import { openOn } from '../../dist/db/open.js';
import { machine } from '../support/machine.ts';
import { withoutThreads } from '../support/threadless.ts';
import { type Content, contentsOf, type Step } from './recorded-program.ts';

export const DATABASE = 'a.db';
export const BACKUP = 'backup.db';
const OPEN_MS = 20_000;

export function optionsFor(durability: Durability): OpenOptions {
  // What is in SQLite needs no sync of the log: a slow flush leaves something to the interval.
  const intervalMs = durability === 'interval' ? 1_000 : 30;
  return { durability, syncIntervalMs: 30, flush: { intervalMs }, log: { segmentBytes: 4_096 } };
}

/** What must be found on a disk. */
export interface Expectation {
  readonly durability: Durability;
  readonly steps: readonly Step[];
  /** So many steps cannot be missing. */
  readonly floor: number;
  /** The backup was said to be complete. */
  readonly backedUp: boolean;
  /** The content that a recovery before this one found: it may not find another one. */
  readonly exactly?: string;
}

/** What was found. */
export interface Found {
  /** The numbers of steps after which there is just this. */
  readonly after: readonly number[];
  readonly content: string;
  readonly recovery: DatabaseStats['recovery'];
  readonly recovered: number;
  readonly deadLetters: number;
  readonly hasBackup: boolean;
}

/** The contents of a program, by what they are. */
export class Contents {
  readonly #after = new Map<string, number[]>();
  readonly #contents: readonly Content[];

  constructor(steps: readonly Step[]) {
    this.#contents = contentsOf(steps);
    for (const [i, content] of this.#contents.entries()) {
      const text = textOf(content);
      this.#after.set(text, [...(this.#after.get(text) ?? []), i]);
    }
  }

  after(content: Content): readonly number[] {
    return this.#after.get(textOf(content)) ?? [];
  }

  /** Where a content that is none of them differs from the nearest. */
  difference(content: Content): string {
    const last = content.rows.at(-1) ?? 0;
    const near = this.#contents.findLast(({ rows }) => (rows.at(-1) ?? 0) === last) ?? this.#contents[0];
    return `${textOf(content)}, and not ${textOf(near as Content)}`;
  }
}

export function textOf({ keys, rows, ledger, guarded, dead }: Content): string {
  const sorted = Object.fromEntries(Object.entries(keys).sort(([a], [b]) => (a < b ? -1 : 1)));
  return JSON.stringify({ keys: sorted, rows, ledger, guarded, dead });
}

/**
 * Opens what is laid in a folder as its user would, and holds it against the contents there can be: all of one step and of those
 * before it, and nothing else. Throws what is wrong.
 */
export async function look(
  folder: string,
  durability: Durability,
  contents: Contents,
  threads: boolean,
): Promise<Found> {
  const file = join(folder, DATABASE);
  const options = optionsFor(durability);
  const opening = threads ? open(file, options) : openOn(machine({ spawn: withoutThreads }), file, options);
  if (!(await settledWithin(opening.then(ignore, ignore), OPEN_MS, systemClock)))
    throw new Error('it does not open in time');
  const db = await opening;
  const found = await readAndWrite(db);
  const content = readRaw(file);
  const { fresh, ...keys } = content.keys;
  if (fresh !== 'is fresh') throw new Error('a fresh write is not there after the close');
  const before = { ...content, keys };
  const after = contents.after(before);
  if (after.length === 0) throw new Error(`there is what never was: ${contents.difference(before)}`);
  const read = JSON.stringify(Object.entries(found.keys).sort());
  if (read !== JSON.stringify(Object.entries(keys).sort()))
    throw new Error(`it read ${read} and carried something else down`);
  const aside = readdirSync(`${file}-log`).filter((name) => /\.(set-aside|corrupt)-/.test(name));
  if (aside.length < found.recovery.setAside) throw new Error(`${found.recovery.setAside} files were to be set aside`);
  const backup = join(folder, BACKUP);
  const hasBackup = existsSync(backup);
  if (hasBackup && contents.after(readRaw(backup)).length === 0) throw new Error('the backup has what never was');
  return { after, content: textOf(before), ...found, hasBackup };
}

async function readAndWrite(db: Database) {
  db.on('dead-letter', ignore);
  try {
    const keys = db.toDict();
    const { recovery, recovered } = db.stats();
    await db.aset('fresh', 'is fresh');
    await db.aflush();
    const { accepted, applied, coalesced, deadLettered, pending, deadLetters } = db.stats();
    if (accepted + recovered !== applied + coalesced + deadLettered + pending)
      throw new Error('the books do not balance');
    return { keys, recovery, recovered, deadLetters: deadLetters.entries };
  } finally {
    await db.close();
  }
}

/** Everything, as SQLite has it, and SQLite's own word that it is sound. */
function readRaw(file: string): Content {
  const db = new Sqlite(file, { readonly: true, fileMustExist: true });
  try {
    const integrity = db.pragma('integrity_check', { simple: true });
    if (integrity !== 'ok') throw new Error(`integrity_check: ${String(integrity)}`);
    const tables = new Set(db.prepare('SELECT name FROM sqlite_schema').pluck().all());
    const all = <R>(table: string, sql: string): R[] => (tables.has(table) ? (db.prepare(sql).raw().all() as R[]) : []);
    const flat = <R>(table: string, sql: string): R[] => all<[R]>(table, sql).map(([value]) => value);
    const entries = all<[string, string]>('data', 'SELECT key, value FROM data');
    return {
      keys: Object.fromEntries(entries.map(([key, value]) => [key, JSON.parse(value) as unknown])),
      rows: flat('events', 'SELECT n FROM events ORDER BY rowid'),
      ledger: all('ledger', 'SELECT n, amount FROM ledger ORDER BY rowid'),
      guarded: flat('guarded', 'SELECT key FROM guarded ORDER BY key'),
      dead: flat('_sluice_dead_letters', 'SELECT key FROM _sluice_dead_letters ORDER BY id'),
    };
  } finally {
    db.close();
  }
}

/** What of an expectation was not met; `undefined` where all was. */
export function brokenPromise(
  { floor, backedUp, exactly }: Expectation,
  { after, content, hasBackup }: Found,
): string | undefined {
  const last = after.at(-1) as number;
  if (last < floor) return `the first ${floor} steps were promised, and there are ${last}`;
  if (exactly !== undefined && content !== exactly) return `a recovery had found ${exactly}, and this one ${content}`;
  return backedUp && !hasBackup ? 'the backup is gone' : undefined;
}

function ignore(): void {}
