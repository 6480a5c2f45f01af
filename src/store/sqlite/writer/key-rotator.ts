import type { ValueCipher } from '../../../base/encryption/index.ts';
import { SluiceError } from '../../../base/errors.ts';
import type { SqlValue } from '../../../base/frame/index.ts';
import { type RotationStep, type RotationStepped, StoreFailure } from '../../store.ts';
import { quote } from '../connection.ts';
import { storeKey } from '../encryption-keys.ts';
import { keyTablesOf } from '../schema.ts';
import type { WriterParts } from './writer-parts.ts';

/** A transaction is over at so many bytes of values, however few they are: they are in memory, and other writes wait. */
const STEP_BYTES = 8 * 1024 * 1024;

/**
 * Brings what is encrypted with another key, or not at all, to the active one, a piece at a time and each piece in a transaction of
 * its own, between batches. Any step may be made again: what is done is recognised, by the key that it names.
 *
 * Rejected: writing the values anew from above, through the log. What another write had changed meanwhile would have to be
 * recognised; here nobody else writes.
 */
export class KeyRotator {
  readonly #parts: WriterParts;
  readonly #cipher: ValueCipher;

  constructor(parts: WriterParts) {
    if (parts.cipher === undefined) throw new StoreFailure('fatal', 'a database without a key has none to change');
    this.#parts = parts;
    this.#cipher = parts.cipher;
  }

  step(step: RotationStep): RotationStepped {
    try {
      return this.#step(step);
    } catch (error) {
      // A value that no key opens is the caller's business, and no failure of the store.
      throw error instanceof StoreFailure && error.cause instanceof SluiceError ? error.cause : error;
    }
  }

  #step(step: RotationStep): RotationStepped {
    const { db, dead, transactions } = this.#parts;
    switch (step.do) {
      case 'begin': {
        // Written down before anything is encrypted with it: a value whose key nobody names could never be read again.
        transactions.run(() => storeKey(db, step.key));
        this.#cipher.keyring.activate(step.material);
        return NOTHING;
      }
      case 'tables':
        return { ...NOTHING, tables: keyTablesOf(db) };
      case 'values':
        return transactions.run(() => this.#values(step.table, step.after, step.limit));
      case 'dead-letters':
        return transactions.run(() => {
          const { last, rewritten } = dead.reseal(step.after, step.limit, new Set(step.except));
          return { ...NOTHING, last, rewritten };
        });
      case 'finish':
        transactions.run(() => {
          storeKey(db, step.key);
          db.prepare('DELETE FROM _sluice_keys WHERE active = 0').run();
        });
        this.#cipher.accepts = 'nothing';
        return NOTHING;
    }
  }

  #values(table: string, after: string | undefined, limit: number): RotationStepped {
    const { db } = this.#parts;
    const found = db
      .prepare(
        `SELECT key, ifnull(value, 'null') FROM ${quote(table)} WHERE typeof(key) = 'text' AND key ${after === undefined ? '>=' : '>'} ?
         ORDER BY key LIMIT ?`,
      )
      .raw()
      .iterate(after ?? '', limit) as IterableIterator<[string, SqlValue]>;
    const rows: [string, SqlValue][] = [];
    let bytes = 0;
    for (const row of found) {
      const [, value] = row;
      rows.push(row);
      if (typeof value === 'string' || value instanceof Uint8Array) bytes += value.length;
      if (bytes >= STEP_BYTES) break;
    }
    const update = db.prepare(`UPDATE ${quote(table)} SET value = ? WHERE key = ?`);
    let rewritten = 0;
    for (const [key, value] of rows) {
      const stored = value instanceof Uint8Array ? value : String(value);
      if (!this.#cipher.isStale(stored)) continue;
      update.run(this.#cipher.seal(table, key, this.#cipher.open(table, key, stored)), key);
      rewritten++;
    }
    return { ...NOTHING, last: rows.length < limit && bytes < STEP_BYTES ? undefined : rows.at(-1)?.[0], rewritten };
  }
}

const NOTHING: RotationStepped = { tables: [], last: undefined, rewritten: 0 };
