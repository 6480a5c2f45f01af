import type { ValueCipher } from '../../../base/encryption/index.ts';
import { foldName } from '../../../base/fold-name.ts';
import { Kind, openWrite, sealWrite } from '../../../base/frame/index.ts';
import type { DeadLetterSummary, PortableDeadLetter, QueueLimits, QueueState, SupersededLetter } from '../../store.ts';
import type { Connection, Statement } from '../connection.ts';
import type { Classified } from '../result-codes.ts';
import { DeadLetterIndex, isOlder, type KeyedLetter, type TableKey, tableKey, tableOf } from './dead-letter-index.ts';
import { decodeWrite, encodeWrite, isOfKey, keysOf, namesOf, resealWrite, type WriteCopy } from './write-copy.ts';

export const SUMMARY_COLUMNS = `id, seq, table_name AS "table", operation, key, accepted_at AS acceptedAt,
  first_failed_at AS firstFailedAt, last_failed_at AS lastFailedAt, attempts, error_class AS errorClass,
  error_code AS errorCode, error_message AS errorMessage, length(write) AS bytes`;

const NONE: SupersededLetter[] = [];

/** What is kept in memory of the table. */
interface Summed {
  readonly index: DeadLetterIndex;
  entries: number;
  bytes: number;
}

/**
 * The dead-letter table as the writer works on it: always inside the caller's transaction.
 *
 * No old write may overwrite a newer one, and the tables of the user keep no sequence numbers. So whoever applies a write
 * says so here, and the entries that are older lose its keys: a put or delete goes, a group goes with the last of its keys
 * (unless there are rows in it), a `clear` remembers the key and will spare it. Changes made by SQL are not seen.
 */
export class DeadLetters {
  readonly #db: Connection;
  readonly #cipher: ValueCipher | undefined;
  readonly #insert: Statement;
  readonly #delete: Statement;
  readonly #overwritten: Statement;
  readonly #stored: Statement;
  readonly #failedAgain: Statement;
  readonly #oldest: Statement;
  #summed: Summed | undefined;
  /** Takes back what the open transaction has changed in the index. */
  readonly #undo: (() => void)[] = [];
  /** The sums before the open transaction. */
  #committed: Pick<Summed, 'entries' | 'bytes'> = { entries: 0, bytes: 0 };

  constructor(db: Connection, cipher: ValueCipher | undefined) {
    this.#db = db;
    this.#cipher = cipher;
    this.#insert = db.prepare(
      `INSERT INTO _sluice_dead_letters (seq, table_name, operation, key, accepted_at, first_failed_at, last_failed_at,
         attempts, error_class, error_code, error_message, write, origin)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#delete = db.prepare(`DELETE FROM _sluice_dead_letters WHERE id = ? RETURNING ${SUMMARY_COLUMNS}`);
    this.#overwritten = db.prepare('INSERT OR IGNORE INTO _sluice_dead_letters_overwritten VALUES (?, ?, ?)');
    this.#stored = db.prepare('SELECT seq, write FROM _sluice_dead_letters WHERE id = ?');
    this.#failedAgain = db.prepare(
      `UPDATE _sluice_dead_letters SET attempts = attempts + 1, last_failed_at = ?, error_class = ?, error_code = ?,
         error_message = ? WHERE id = ?`,
    );
    this.#oldest = db.prepare('SELECT first_failed_at FROM _sluice_dead_letters ORDER BY id LIMIT 1').pluck();
  }

  get state(): QueueState {
    const { entries, bytes } = this.#sums();
    return { entries, bytes, oldestAt: entries === 0 ? undefined : (this.#oldest.get() as number) };
  }

  add(write: WriteCopy, error: Classified): DeadLetterSummary {
    const now = Date.now();
    return this.#store(
      write,
      {
        ...namesOf(write),
        seq: write.seq,
        acceptedAt: Math.round(write.acceptedAt),
        firstFailedAt: now,
        lastFailedAt: now,
        attempts: 1,
        errorClass: classOf(error),
        errorCode: error.code,
        errorMessage: error.message,
      },
      sealWrite(encodeWrite(write).bytes, this.#cipher),
      null,
    );
  }

  /** Takes an entry of another queue in, or of an earlier time of this one; returns whether it was not here yet. */
  import(letter: PortableDeadLetter, own: { databaseId: string; appliedSeq: number }): boolean {
    const { origin } = letter;
    const isOwn = origin === `${own.databaseId}:${letter.seq}` && letter.seq <= own.appliedSeq;
    const known = isOwn
      ? this.#db.prepare('SELECT 1 FROM _sluice_dead_letters WHERE seq = ? AND origin IS NULL').get(letter.seq)
      : this.#db.prepare('SELECT 1 FROM _sluice_dead_letters WHERE origin = ?').get(origin);
    if (known !== undefined) return false;
    // Numbers of another database say nothing here. What is written from now on is newer.
    const write = decodeWrite(letter.write, isOwn ? letter.seq : own.appliedSeq);
    const overwritten = write.kind === Kind.group || write.kind === Kind.clear ? letter.overwritten : [];
    const summary = { ...letter, ...namesOf(write), seq: write.seq };
    this.#store(write, summary, this.#sealed(letter.write), isOwn ? null : origin, overwritten);
    return true;
  }

  /** A write was applied, by a batch or as the retry of the entry `id`: returns the entries that it has superseded. */
  supersededBy(write: WriteCopy, id = 0): SupersededLetter[] {
    if (this.#sums().index.isEmpty) return NONE;
    switch (write.kind) {
      case Kind.putText:
      case Kind.putBlob:
      case Kind.delete:
        return this.supersededByKey(write.table as string, write.key, write.seq, id);
      case Kind.clear:
        return this.#supersededByClear(write.table as string, write.seq, id);
      case Kind.group:
        return write.members.flatMap((member) => this.supersededBy(member, id));
      default:
        return NONE;
    }
  }

  supersededByKey(table: string, key: string, seq: number, id = 0): SupersededLetter[] {
    const { index } = this.#sums();
    if (index.isEmpty || !index.concerns(table, key)) return NONE;
    const name = tableKey(table, key);
    const gone = [...index.ofKey(name)].flatMap((letter) => this.#loseKey(letter, name, seq, id));
    for (const letter of index.clearsOf(tableOf(name))) {
      if (isOlder(letter, seq, id)) this.#overwritten.run(BigInt(letter.id), tableOf(name), key);
    }
    return gone;
  }

  /** Encrypts the next entries anew that are not as the active key makes them, and the values in them. */
  reseal(
    after: number,
    limit: number,
    except: ReadonlySet<string>,
  ): { readonly last: number | undefined; readonly rewritten: number } {
    const rows = this.#db
      .prepare('SELECT id, write FROM _sluice_dead_letters WHERE id > ? ORDER BY id LIMIT ?')
      .all(after, limit) as { id: number; write: Uint8Array }[];
    const update = this.#db.prepare('UPDATE _sluice_dead_letters SET write = ? WHERE id = ?');
    let rewritten = 0;
    for (const { id, write } of rows) {
      const resealed = resealWrite(write, this.#cipher as ValueCipher, except);
      if (resealed === undefined) continue;
      update.run(resealed, id);
      this.#count(0, resealed.length - write.length);
      rewritten++;
    }
    return { last: rows.length < limit ? undefined : rows.at(-1)?.id, rewritten };
  }

  /** The write of an entry, as far as it is still to be applied; `undefined` where the entry is gone. */
  write(id: number): WriteCopy | undefined {
    const row = this.#stored.get(id) as { seq: number; write: Uint8Array } | undefined;
    if (row === undefined) return undefined;
    const write = decodeWrite(openWrite(row.write, this.#cipher), row.seq);
    if (write.kind === Kind.clear) return { ...write, sparing: id };
    if (write.kind !== Kind.group) return write;
    const overwritten = this.#overwrittenOf(id);
    return { ...write, members: write.members.filter((member) => !keysOf(member).some((key) => overwritten.has(key))) };
  }

  /** An entry and the newer ones of its keys, in the order in which they have to be tried. */
  newestFirst(id: number): number[] {
    const { index } = this.#sums();
    const letter = index.get(id);
    return letter === undefined ? [id] : index.newestFirst(letter).map((each) => each.id);
  }

  failedAgain(id: number, error: Classified): void {
    this.#failedAgain.run(BigInt(Date.now()), classOf(error), error.code, error.message, id);
  }

  /** Returns what was there. */
  remove(id: number): DeadLetterSummary | undefined {
    const { index } = this.#sums();
    const letter = this.#delete.get(id) as DeadLetterSummary | undefined;
    if (letter === undefined) return undefined;
    if (letter.operation === 'group' || letter.operation === 'clear') {
      this.#db.prepare('DELETE FROM _sluice_dead_letters_overwritten WHERE id = ?').run(id);
    }
    this.#count(-1, -letter.bytes);
    const keyed = index.get(id);
    if (keyed !== undefined) {
      index.remove(keyed);
      this.#undo.push(() => index.add(keyed));
    }
    return letter;
  }

  /** Drops the oldest entries until the queue is within its limits. */
  evict({ maxEntries, maxBytes, maxAgeMs, overflow }: QueueLimits): DeadLetterSummary[] {
    if (overflow === 'block') return [];
    const sums = this.#sums();
    const tooOld = maxAgeMs === undefined ? Number.NEGATIVE_INFINITY : Date.now() - maxAgeMs;
    const oldest = this.#db.prepare('SELECT id, first_failed_at AS at FROM _sluice_dead_letters ORDER BY id LIMIT 100');
    const evicted: DeadLetterSummary[] = [];
    for (;;) {
      const before = evicted.length;
      for (const { id, at } of oldest.all() as { id: number; at: number }[]) {
        if (sums.entries <= maxEntries && sums.bytes <= maxBytes && at >= tooOld) return evicted;
        evicted.push(this.remove(id) as DeadLetterSummary);
      }
      if (evicted.length === before) return evicted;
    }
  }

  summaries(afterSeq: number, lastSeq: number): DeadLetterSummary[] {
    return this.#db
      .prepare(`SELECT ${SUMMARY_COLUMNS} FROM _sluice_dead_letters WHERE seq > ? AND seq <= ? ORDER BY id`)
      .all(afterSeq, lastSeq) as DeadLetterSummary[];
  }

  /** To be called when a transaction was committed. */
  committed(): void {
    this.#undo.length = 0;
    if (this.#summed !== undefined) this.#committed = { entries: this.#summed.entries, bytes: this.#summed.bytes };
  }

  /** To be called when a transaction was rolled back. Reading all again would make a large queue slow to fail. */
  rolledBack(): void {
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) undo();
    if (this.#summed !== undefined) Object.assign(this.#summed, this.#committed);
  }

  /** With the active key, values and all: an export may be of the time before the key was changed. */
  #sealed(write: Uint8Array): Uint8Array {
    const cipher = this.#cipher;
    const sealed = sealWrite(write, cipher);
    if (cipher === undefined || cipher.accepts !== 'nothing') return sealed;
    return resealWrite(sealed, cipher, new Set()) ?? sealed;
  }

  #store(
    write: WriteCopy,
    summary: Omit<DeadLetterSummary, 'id' | 'bytes'>,
    bytes: Uint8Array,
    origin: string | null,
    overwritten: readonly (readonly [table: string, key: string])[] = [],
  ): DeadLetterSummary {
    const { index } = this.#sums();
    const { lastInsertRowid } = this.#insert.run(
      summary.seq,
      summary.table,
      summary.operation,
      summary.key,
      summary.acceptedAt,
      summary.firstFailedAt,
      summary.lastFailedAt,
      summary.attempts,
      summary.errorClass,
      summary.errorCode,
      summary.errorMessage,
      bytes,
      origin,
    );
    for (const [table, key] of overwritten) this.#overwritten.run(lastInsertRowid, table, key);
    const id = Number(lastInsertRowid);
    const letter = keyedLetter(id, write);
    for (const [table, key] of overwritten) letter?.keys.delete(tableKey(table, key));
    this.#count(1, bytes.length);
    if (letter !== undefined) {
      index.add(letter);
      this.#undo.push(() => index.remove(letter));
    }
    return { ...summary, id, bytes: bytes.length };
  }

  #supersededByClear(table: string, seq: number, id: number): SupersededLetter[] {
    const folded = foldName(table);
    return [...this.#sums().index.ofTable(folded)].flatMap((letter) => {
      if (letter.clears === folded) return isOlder(letter, seq, id) ? this.#superseded(letter, seq) : NONE;
      const keys = [...letter.keys].filter((own) => tableOf(own) === folded);
      return keys.flatMap((key) => this.#loseKey(letter, key, seq, id));
    });
  }

  #loseKey(letter: KeyedLetter, key: TableKey, seq: number, id: number): SupersededLetter[] {
    if (!isOlder(letter, seq, id)) return NONE;
    if (letter.keys.size === 1 && !letter.hasMore) return this.#superseded(letter, seq);
    const { index } = this.#sums();
    index.loseKey(letter, key);
    this.#undo.push(() => {
      letter.keys.add(key);
      index.add(letter);
    });
    const table = tableOf(key);
    this.#overwritten.run(BigInt(letter.id), table, key.slice(table.length + 1));
    return NONE;
  }

  #superseded({ id }: KeyedLetter, bySeq: number): SupersededLetter[] {
    return [{ ...(this.remove(id) as DeadLetterSummary), bySeq }];
  }

  #overwrittenOf(id: number): ReadonlySet<TableKey> {
    const rows = this.#db
      .prepare('SELECT table_name, key FROM _sluice_dead_letters_overwritten WHERE id = ?')
      .raw()
      .all(id) as [string, string][];
    return new Set(rows.map(([table, key]) => tableKey(table, key)));
  }

  #count(entries: number, bytes: number): void {
    const sums = this.#sums();
    sums.entries += entries;
    sums.bytes += bytes;
  }

  #sums(): Summed {
    this.#summed ??= this.#load();
    return this.#summed;
  }

  #load(): Summed {
    const size = this.#db
      .prepare('SELECT count(*) AS entries, ifnull(sum(length(write)), 0) AS bytes FROM _sluice_dead_letters')
      .get() as { entries: number; bytes: number };
    const index = new DeadLetterIndex();
    const keyed = this.#db.prepare(
      `SELECT id, seq, table_name AS "table", key, operation FROM _sluice_dead_letters
       WHERE operation IN ('put', 'delete', 'group', 'clear')`,
    );
    for (const { id, seq, table, key, operation } of keyed.all() as DeadLetterSummary[]) {
      // Only a group has to be looked into.
      const isOfOneKey = operation === 'put' || operation === 'delete';
      const letter = isOfOneKey
        ? letterOf(id, seq, [tableKey(table as string, key as string)])
        : keyedLetter(id, this.write(id) as WriteCopy);
      if (letter !== undefined) index.add(letter);
    }
    this.#committed = size;
    return { index, ...size };
  }
}

function classOf(error: Classified): DeadLetterSummary['errorClass'] {
  return error.class === 'config' ? 'config' : 'permanent';
}

/** A write as the index knows it; `undefined` where it has no key. */
function keyedLetter(id: number, write: WriteCopy): KeyedLetter | undefined {
  if (write.kind === Kind.clear) {
    return { ...letterOf(id, write.seq, []), clears: foldName(write.table as string), hasMore: true };
  }
  const keys = keysOf(write);
  if (keys.length === 0) return undefined;
  return { ...letterOf(id, write.seq, keys), hasMore: write.members.some(({ kind }) => !isOfKey(kind)) };
}

function letterOf(id: number, seq: number, keys: readonly TableKey[]): KeyedLetter {
  return { id, seq, keys: new Set(keys), clears: undefined, hasMore: false };
}
