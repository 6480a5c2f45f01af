import { type Frame, FrameBuilder, FrameReader, Kind, type SqlValue, Target } from '../../base/frame/index.ts';
import type { DeadLetter, DeadLetterSummary, DeadOperation } from '../store.ts';
import { type Connection, narrow, type Statement } from './connection.ts';
import type { Classified } from './result-codes.ts';

/** One write as the frame reader found it, kept for longer than the reader stands on it. */
export interface WriteCopy {
  readonly seq: number;
  readonly acceptedAt: number;
  readonly kind: Kind;
  readonly table: string | null;
  readonly statement: string | null;
  readonly key: string;
  readonly value: string | Uint8Array;
  readonly parameters: readonly SqlValue[];
  /** The members, of a group. */
  readonly members: readonly WriteCopy[];
}

export function copyOf(reader: FrameReader): WriteCopy {
  return {
    seq: reader.seq,
    acceptedAt: reader.acceptedAt,
    kind: reader.kind,
    table: reader.target.table,
    statement: reader.target.statement,
    key: reader.key,
    value: reader.value,
    parameters: reader.parameters,
    members: [],
  };
}

/** Takes a group and its members off the reader, which stands on the group. */
export function copyGroup(reader: FrameReader): WriteCopy {
  const members: WriteCopy[] = [];
  const { seq, acceptedAt } = reader;
  for (let left = reader.members; left > 0 && reader.next(); left--) members.push(copyOf(reader));
  const tables = new Set(members.map((member) => member.table));
  const table = tables.size === 1 ? (members[0]?.table ?? null) : null;
  return { seq, acceptedAt, kind: Kind.group, table, statement: null, key: '', value: '', parameters: [], members };
}

const OPERATIONS: Readonly<Record<Kind, DeadOperation>> = {
  [Kind.putText]: 'put',
  [Kind.putBlob]: 'put',
  [Kind.delete]: 'delete',
  [Kind.clear]: 'clear',
  [Kind.append]: 'append',
  [Kind.stage]: 'sql',
  [Kind.ensure]: 'ensure',
  [Kind.group]: 'group',
};

const SUMMARY_COLUMNS = `id, seq, table_name AS "table", operation, key, accepted_at AS acceptedAt,
  first_failed_at AS firstFailedAt, last_failed_at AS lastFailedAt, attempts, error_class AS errorClass,
  error_code AS errorCode, error_message AS errorMessage`;

const NONE: DeadLetterSummary[] = [];

/**
 * The dead-letter table as the writer works on it: always inside the caller's transaction. A write is kept as a frame
 * of its own, so that a retry applies exactly what was accepted.
 *
 * Which keys have entries is also kept in memory, since every applied key has to be checked against it.
 */
export class DeadLetters {
  readonly #db: Connection;
  readonly #insert: Statement;
  readonly #deleteOlder: Statement;
  readonly #deleteOlderOfTable: Statement;
  #keys: Map<string, Set<string>> | undefined;

  constructor(db: Connection) {
    this.#db = db;
    this.#insert = db.prepare(
      `INSERT INTO _sluice_dead_letters (seq, table_name, operation, key, accepted_at, first_failed_at, last_failed_at,
         attempts, error_class, error_code, error_message, write)
       VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?)`,
    );
    this.#deleteOlder = db.prepare(
      `DELETE FROM _sluice_dead_letters WHERE table_name = ? AND key = ? AND seq < ? RETURNING ${SUMMARY_COLUMNS}`,
    );
    this.#deleteOlderOfTable = db.prepare(
      `DELETE FROM _sluice_dead_letters WHERE table_name = ? AND key IS NOT NULL AND seq < ? RETURNING ${SUMMARY_COLUMNS}`,
    );
  }

  add(write: WriteCopy, error: Classified): void {
    const now = BigInt(Date.now());
    const key = write.kind <= Kind.delete ? write.key : null;
    this.#insert.run(
      BigInt(write.seq),
      write.table,
      OPERATIONS[write.kind],
      key,
      BigInt(Math.round(write.acceptedAt)),
      now,
      now,
      error.class,
      error.code,
      error.message,
      frameOf(write).bytes,
    );
    if (key !== null) this.#keysOf(write.table ?? '').add(key);
  }

  /** Drops the entries that a write applied under `seq` has made pointless, and returns them. */
  supersede(table: string, key: string, seq: number): DeadLetterSummary[] {
    if (!this.#loaded().get(table)?.has(key)) return NONE;
    return this.#deleteOlder.all(table, key, BigInt(seq)) as DeadLetterSummary[];
  }

  supersedeTable(table: string, seq: number): DeadLetterSummary[] {
    if (!this.#loaded().has(table)) return NONE;
    return this.#deleteOlderOfTable.all(table, BigInt(seq)) as DeadLetterSummary[];
  }

  /** To be called when a transaction was rolled back, or entries have gone. */
  forget(): void {
    this.#keys = undefined;
  }

  summaries(afterSeq: number, lastSeq: number): DeadLetterSummary[] {
    return this.#db
      .prepare(`SELECT ${SUMMARY_COLUMNS} FROM _sluice_dead_letters WHERE seq > ? AND seq <= ? ORDER BY id`)
      .all(afterSeq, lastSeq) as DeadLetterSummary[];
  }

  /** The write of an entry, `undefined` where the entry is gone. */
  write(id: number): WriteCopy | undefined {
    const bytes = this.#db.prepare('SELECT write FROM _sluice_dead_letters WHERE id = ?').pluck().get(id);
    return bytes === undefined ? undefined : writeOf(bytes as Uint8Array);
  }

  failedAgain(id: number, error: Classified): void {
    this.#db
      .prepare(
        `UPDATE _sluice_dead_letters SET attempts = attempts + 1, last_failed_at = ?, error_code = ?, error_message = ? WHERE id = ?`,
      )
      .run(BigInt(Date.now()), error.code, error.message, id);
  }

  remove(id: number): number {
    this.forget();
    return this.#db.prepare('DELETE FROM _sluice_dead_letters WHERE id = ?').run(id).changes;
  }

  #keysOf(table: string): Set<string> {
    const tables = this.#loaded();
    let keys = tables.get(table);
    if (keys === undefined) {
      keys = new Set();
      tables.set(table, keys);
    }
    return keys;
  }

  #loaded(): Map<string, Set<string>> {
    if (this.#keys === undefined) {
      this.#keys = new Map();
      const rows = this.#db
        .prepare('SELECT table_name, key FROM _sluice_dead_letters WHERE key IS NOT NULL')
        .raw()
        .all() as [string, string][];
      for (const [table, key] of rows) this.#keysOf(table).add(key);
    }
    return this.#keys;
  }
}

/** Entries with what they wanted to write, oldest first. Works on any connection. */
export function listDeadLetters(db: Connection, afterId: number, limit: number): DeadLetter[] {
  const rows = db
    .prepare(`SELECT ${SUMMARY_COLUMNS}, write FROM _sluice_dead_letters WHERE id > ? ORDER BY id LIMIT ?`)
    .all(afterId, limit) as (DeadLetterSummary & { write: Uint8Array })[];
  return rows.map(({ write, ...summary }) => ({ ...summary, ...contentOf(writeOf(write)) }));
}

function contentOf(write: WriteCopy): Pick<DeadLetter, 'statement' | 'payload'> {
  switch (write.kind) {
    case Kind.putText:
    case Kind.putBlob:
      return { statement: null, payload: write.value };
    case Kind.append:
    case Kind.stage:
      return { statement: write.statement, payload: write.parameters.map(narrow) };
    case Kind.ensure:
      return { statement: write.statement, payload: null };
    default:
      return { statement: null, payload: null };
  }
}

function frameOf(write: WriteCopy): Frame {
  const builder = new FrameBuilder(write.acceptedAt);
  if (write.kind === Kind.group) {
    builder.group(write.members.length);
    for (const member of write.members) addTo(builder, member);
  } else {
    addTo(builder, write);
  }
  return builder.build(write.seq);
}

function addTo(builder: FrameBuilder, write: WriteCopy): void {
  const target = new Target(write.table, write.statement);
  switch (write.kind) {
    case Kind.putText:
    case Kind.putBlob:
      return builder.put(target, write.key, write.value);
    case Kind.delete:
      return builder.delete(target, write.key);
    case Kind.clear:
      return builder.clear(target);
    case Kind.append:
      return builder.append(target, write.parameters);
    case Kind.stage:
      return builder.stage(target, write.parameters);
    case Kind.ensure:
      return builder.ensure(target);
    default:
      throw new Error(`a record of kind ${write.kind} cannot stand alone`);
  }
}

function writeOf(bytes: Uint8Array): WriteCopy {
  const aligned = Buffer.from(new ArrayBuffer(bytes.length));
  aligned.set(bytes);
  const reader = new FrameReader(aligned);
  reader.next();
  return reader.kind === Kind.group ? copyGroup(reader) : copyOf(reader);
}
