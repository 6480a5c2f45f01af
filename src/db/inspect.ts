import type { Stats } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { codeOf, messageOf, SluiceError } from '../base/errors.ts';
import { nodeFileSystem } from '../base/node-file-system.ts';
import { show } from '../base/options.ts';
import { LogSurvey, type RecoveryForecast, type SegmentFacts } from '../engine/log/index.ts';
import { type DatabaseFacts, Examination, lastOwner, type Owner } from '../store/sqlite/index.ts';

/** What {@link inspect} found. Byte counts are of files, times milliseconds since 1970. */
export interface InspectReport {
  /** The database file, with all links resolved. */
  readonly path: string;
  readonly database: {
    readonly bytes: number;
    /** Of the `-wal` beside it; `null` where there is none. */
    readonly walBytes: number | null;
    readonly pageSize: number;
    /** Version of the SQLite that read it. */
    readonly sqliteVersion: string;
  };
  readonly state: {
    readonly databaseId: string;
    /** Grows with every restore. */
    readonly epoch: number;
    /** Version of Sluice's own tables. */
    readonly format: number;
    /** Every write up to it is applied or dead. */
    readonly watermark: number;
  };
  readonly deadLetters: {
    readonly count: number;
    /** The one that was refused first; `null` where there is none. */
    readonly oldest: {
      readonly id: number;
      readonly seq: number;
      readonly acceptedAt: number;
      readonly firstFailedAt: number;
    } | null;
  };
  readonly process: {
    /** Whether a process has the database open now. */
    readonly open: boolean;
    /** Who had it last, or has it: what `owner.json` says. `null` where it says nothing. */
    readonly owner: { readonly pid: number; readonly host: string; readonly startedAt: string } | null;
  };
  readonly log: {
    readonly directory: string;
    /** Of all segments. */
    readonly bytes: number;
    readonly segments: readonly SegmentFacts[];
    /** Files that are neither segments nor of the process lock. `kind` is what recovery called them. */
    readonly otherFiles: readonly {
      readonly name: string;
      readonly bytes: number;
      readonly kind: 'corrupt' | 'set-aside' | 'other';
    }[];
  };
  /** What the next `open` would do; `null` while a process has the database open. */
  readonly recovery: RecoveryForecast | null;
}

/** Something that {@link verify} found wrong. */
export interface Finding {
  /**
   * `integrity`: SQLite's own check, or pages that cannot be read. `state`: Sluice's state row. `dead-letter`: an entry
   * that does not decode, or whose columns do not say what its write says. In the log: `frame` and `header` are damaged
   * where they had been synced, `sequence` is out of order, `gap` is missing writes, `format` is of another version,
   * `unreadable` is refused by the disk.
   */
  readonly kind:
    | 'integrity'
    | 'state'
    | 'dead-letter'
    | 'header'
    | 'frame'
    | 'sequence'
    | 'gap'
    | 'format'
    | 'unreadable';
  /** What it is about: the name of a segment, the id of a dead letter, or `database`. */
  readonly subject: string;
  readonly message: string;
}

/** What {@link verify} found. */
export interface VerifyReport {
  /** The database file, with all links resolved. */
  readonly path: string;
  /** Whether nothing is wrong. */
  readonly ok: boolean;
  /** Whether a process has, or had meanwhile, the database open: the end of its log was not judged. */
  readonly open: boolean;
  readonly findings: readonly Finding[];
  /** What is worth knowing and no fault: unsynced tails, segments of another database, what could not be judged. */
  readonly notes: readonly string[];
  /** How much was checked. */
  readonly checked: {
    /** Size of the database file. */
    readonly bytes: number;
    readonly segments: number;
    readonly frames: number;
    readonly deadLetters: number;
  };
}

/**
 * Looks at a database and its log without opening, changing or recovering anything: what is there, and what the next `open`
 * would do. Not one file is written, made or deleted; of a database that was killed, SQLite's `-wal` is read too, and stays as
 * it is. A database that is open may be inspected: its log is being written, so no recovery is foretold.
 *
 * Errors: `SLUICE_NOT_FOUND` where there is no such file, or Sluice has never had it open, `SLUICE_STORE` where SQLite
 * cannot read it, `SLUICE_INVALID_OPTION` for a path that can be none.
 *
 * @example
 * ```ts
 * import { mkdtempSync, rmSync } from 'node:fs';
 * import { tmpdir } from 'node:os';
 * import { join } from 'node:path';
 * import { inspect, open } from 'sluicedb';
 *
 * const folder = mkdtempSync(join(tmpdir(), 'sluice-'));
 * const db = await open(join(folder, 'a.db'));
 * db.set('a', 1);
 * await db.close();
 * const { state, recovery } = await inspect(join(folder, 'a.db'));
 * console.log(state.watermark, recovery?.outcome); // 1 nothing
 * rmSync(folder, { recursive: true });
 * ```
 */
export async function inspect(path: string): Promise<InspectReport> {
  const { file, facts, isOpen, log, bytes, walBytes } = await look(path, false);
  const { pageSize, sqliteVersion, unreadable } = facts;
  if (unreadable !== undefined) {
    throw new SluiceError('SLUICE_STORE', `${file} is damaged, verify tells more: ${unreadable.message}`, {
      sqliteCode: unreadable.code,
    });
  }
  const { state, problems } = stateOf(facts);
  if (state === undefined) {
    throw new SluiceError('SLUICE_STORE', `${file} has been damaged or changed by hand: ${problems.join('; ')}`);
  }
  const directory = logFolder(file);
  const owner = logOwner(state, facts);
  const segments = log.segments(owner, isOpen);
  return {
    path: file,
    database: { bytes, walBytes, pageSize, sqliteVersion },
    state,
    deadLetters: { count: facts.deadLetters?.count ?? 0, oldest: facts.deadLetters?.oldest ?? null },
    process: { open: isOpen, owner: noteOf(await lastOwner(directory, nodeFileSystem)) },
    log: {
      directory,
      bytes: segments.reduce((total, segment) => total + (segment.bytes ?? 0), 0),
      segments,
      otherFiles: await otherFiles(directory),
    },
    recovery: isOpen ? null : log.forecast(owner),
  };
}

/**
 * Checks all of a database, as `inspect` without changing anything: every frame of the log, the log against the watermark,
 * SQLite's own `integrity_check`, the state row and every dead letter. It reads the whole file, in a process of its own.
 *
 * While a process has the database open, what can be checked is, and the end of the log is not judged. A database that was
 * killed and not opened since cannot be opened while it is being verified.
 *
 * A finding is no error: look at `ok`. Errors as for {@link inspect}.
 *
 * @example
 * ```ts
 * import { mkdtempSync, rmSync } from 'node:fs';
 * import { tmpdir } from 'node:os';
 * import { join } from 'node:path';
 * import { open, verify } from 'sluicedb';
 *
 * const folder = mkdtempSync(join(tmpdir(), 'sluice-'));
 * const db = await open(join(folder, 'a.db'));
 * db.set('a', 1);
 * await db.close();
 * const { ok, findings } = await verify(join(folder, 'a.db'));
 * console.log(ok, findings); // true []
 * rmSync(folder, { recursive: true });
 * ```
 */
export async function verify(path: string): Promise<VerifyReport> {
  const { file, facts, isOpen, log, bytes } = await look(path, true);
  const findings: Finding[] = [];
  const notes: string[] = [];
  const { state, problems } = stateOf(facts);
  if (facts.unreadable === undefined) {
    findings.push(...problems.map((message): Finding => ({ kind: 'state', subject: 'database', message })));
  }
  const { integrity = [], integrityFailure, badDeadLetters = [], deadLetters = 0 } = facts.checks ?? {};
  // Where the check itself says nothing, what could not be read does.
  const pages = integrity.length === 0 && facts.unreadable !== undefined ? [facts.unreadable.message] : integrity;
  findings.push(...pages.map((message): Finding => ({ kind: 'integrity', subject: 'database', message })));
  if (integrityFailure !== undefined) notes.push(`integrity_check could not be run to its end: ${integrityFailure}`);
  for (const { id, problem } of badDeadLetters) {
    findings.push({ kind: 'dead-letter', subject: String(id), message: problem });
  }
  let segments = 0;
  if (state === undefined) {
    notes.push('the log was not judged: without the state row nobody knows what it belongs to');
  } else {
    const owner = logOwner(state, facts);
    const all = log.segments(owner, isOpen);
    segments = all.length;
    findings.push(
      ...log
        .findings(owner, isOpen)
        .map(({ segment, kind, message }): Finding => ({ kind, subject: segment, message })),
    );
    notes.push(...notesOn(all, isOpen));
  }
  const checked = { bytes, segments, frames: log.frames, deadLetters };
  return { path: file, ok: findings.length === 0, open: isOpen, findings, notes, checked };
}

interface Look {
  readonly file: string;
  readonly facts: DatabaseFacts;
  readonly isOpen: boolean;
  readonly log: LogSurvey;
  readonly bytes: number;
  readonly walBytes: number | null;
}

async function look(path: string, check: boolean): Promise<Look> {
  const file = await existingFile(path);
  const directory = logFolder(file);
  const examination = new Examination(file, directory);
  try {
    const { size: bytes } = await stat(file);
    const walBytes = (await statOf(`${file}-wal`))?.size ?? null;
    const before = await examination.isHeld();
    // The log first, then the watermark: see LogSurvey.
    const log = await LogSurvey.read({ fileSystem: nodeFileSystem, directory });
    const facts = await examination.facts(check);
    if (facts.state === undefined && facts.unreadable === undefined) {
      throw new SluiceError(
        'SLUICE_NOT_FOUND',
        `${file} has never been opened by Sluice: it has no state of Sluice's in it`,
      );
    }
    return { file, facts, isOpen: before || (await examination.isHeld()), log, bytes, walBytes };
  } finally {
    await examination.end();
  }
}

async function existingFile(path: string): Promise<string> {
  if (typeof path !== 'string' || path === '' || path === ':memory:') {
    throw new SluiceError('SLUICE_INVALID_OPTION', `path must be the name of a database file, not ${show(path)}`);
  }
  const absolute = resolve(path);
  try {
    const file = await realpath(absolute);
    if ((await stat(file)).isFile()) return file;
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT')
      throw new SluiceError('SLUICE_NOT_FOUND', `there is no file ${absolute}`, { cause });
    throw cannotLook(absolute, cause);
  }
  throw new SluiceError('SLUICE_INVALID_OPTION', `${absolute} is no file`);
}

function logFolder(file: string): string {
  return `${file}-log`;
}

/** By name alone: a file of SQLite's is never opened here, see `store/sqlite/lock.ts`. */
async function statOf(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return undefined;
    throw cannotLook(path, cause);
  }
}

function cannotLook(path: string, cause: unknown): SluiceError {
  return new SluiceError('SLUICE_INVALID_OPTION', `${path} cannot be looked at: ${messageOf(cause)}`, { cause });
}

/** The state row, if the log can be judged by it; and what is wrong with it. */
function stateOf({ state: rows = [], deadLetters }: DatabaseFacts): {
  state: InspectReport['state'] | undefined;
  problems: string[];
} {
  const [row] = rows;
  if (row === undefined || rows.length > 1) {
    return { state: undefined, problems: [`_sluice_state has ${rows.length} rows, and must have one`] };
  }
  const { database_id: databaseId, epoch, format, applied_seq: watermark } = row;
  const whole = (value: unknown, least: number): value is number =>
    Number.isSafeInteger(value) && Number(value) >= least;
  const problems: string[] = [];
  const expect = (holds: boolean, name: string) => {
    if (!holds) problems.push(`${name} of the state row cannot be ${show(row[name])}`);
  };
  const isId = typeof databaseId === 'string' && /^[0-9a-f]{32}$/.test(databaseId);
  expect(isId, 'database_id');
  expect(whole(epoch, 1) && epoch <= 0xffff_ffff, 'epoch');
  expect(whole(format, 1), 'format');
  expect(whole(watermark, 0), 'applied_seq');
  expect(typeof row['owner'] === 'string' && row['owner'] !== '', 'owner');
  expect(whole(row['batch_after'], -1) && (!whole(watermark, 0) || row['batch_after'] <= watermark), 'batch_after');
  expect(row['batch_result'] === '' || isJson(row['batch_result']), 'batch_result');
  if (deadLetters === undefined) problems.push('_sluice_dead_letters is missing');
  if (!isId || !whole(epoch, 1) || !whole(format, 1) || !whole(watermark, 0)) return { state: undefined, problems };
  return { state: { databaseId, epoch, format, watermark }, problems };
}

function isJson(value: unknown): boolean {
  try {
    return typeof value === 'string' && typeof JSON.parse(value) === 'object';
  } catch {
    return false;
  }
}

/** What recovery goes by. At open the watermark is raised to the highest number among the dead letters. */
function logOwner(
  { databaseId, epoch, watermark }: InspectReport['state'],
  { deadLetters }: DatabaseFacts,
): Parameters<LogSurvey['forecast']>[0] {
  return { databaseId, epoch, appliedSeq: Math.max(watermark, deadLetters?.maxSeq ?? 0) };
}

function noteOf(owner: Owner | undefined): InspectReport['process']['owner'] {
  return owner === undefined ? null : { pid: owner.pid, host: owner.host, startedAt: owner.startedAt };
}

/** A database that was only ever opened by something else has no folder. */
async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') return [];
    throw cannotLook(directory, cause);
  }
}

async function otherFiles(directory: string): Promise<InspectReport['log']['otherFiles'][number][]> {
  const files: InspectReport['log']['otherFiles'][number][] = [];
  for (const name of (await namesIn(directory)).sort()) {
    if (/^\d{10}\.log$|^lock\.db|^owner\.json$/.test(name)) continue;
    const found = await statOf(join(directory, name));
    if (found === undefined) continue;
    const [, kind = 'other'] = /\.(corrupt|set-aside)-[^.]*$/.exec(name) ?? [];
    files.push({ name, bytes: found.size, kind: kind as 'corrupt' | 'set-aside' | 'other' });
  }
  return files;
}

function notesOn(segments: readonly SegmentFacts[], isOpen: boolean): string[] {
  const notes: string[] = [];
  for (const { name, own, tornBytes, damage, bytes } of segments) {
    if (own === false) notes.push(`${name} is of another database or epoch: open sets it aside`);
    else if (own === null && damage === null && !isOpen)
      notes.push(`${name} is empty: open deletes it, or passes it over`);
    else if (tornBytes > 0 && !isOpen) {
      notes.push(`${name} ends in ${tornBytes} of ${bytes} bytes that were never synced: open cuts them off`);
    }
  }
  if (isOpen) notes.push('a process has the database open: its log is being written, and the end of it was not judged');
  return notes;
}
