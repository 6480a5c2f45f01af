import { messageOf, SluiceError } from '../errors.ts';
import { foldName } from '../fold-name.ts';
import type { SqlValue } from '../frame/layout.ts';
import { show } from '../options.ts';
import type { KeyMaterial } from './key.ts';
import { Keyring, keyIdOf, notEncrypted } from './keyring.ts';
import { openNanaSqlite } from './nanasqlite.ts';

/** What is read besides what this version encrypts, until all of it is rewritten: see `arotateKey`. */
export type Accepts = 'nothing' | 'plain' | 'nanasqlite';

/** The keys of a database, as threads hand them to each other. */
export interface Secrets {
  readonly keys: readonly [KeyMaterial, ...KeyMaterial[]];
  readonly accepts: Accepts;
}

/** The byte before a value that is sealed. */
const TEXT = 0;
const BYTES = 1;

/** A value as it is stored where nothing is encrypted: JSON text, or bytes. */
type Plain = string | Uint8Array;

/** Seals the values of key-value tables, each bound to its table and key: nobody can move it to another row. */
export class ValueCipher {
  readonly keyring: Keyring;
  accepts: Accepts;

  constructor({ keys, accepts }: Secrets) {
    this.keyring = new Keyring(keys);
    this.accepts = accepts;
  }

  /** How much longer than its UTF-8 a sealed value is, at most. */
  get overheadBytes(): number {
    return this.keyring.active.algorithm === 'fernet' ? 160 : 48;
  }

  seal(table: string, key: string, value: Plain): Uint8Array {
    const isText = typeof value === 'string';
    const plain = Buffer.allocUnsafe(1 + (isText ? Buffer.byteLength(value) : value.length));
    plain[0] = isText ? TEXT : BYTES;
    if (isText) plain.write(value, 1);
    else plain.set(value, 1);
    return this.keyring.seal(plain, contextOf(table, key));
  }

  /**
   * Throws `SLUICE_DECRYPT` for what was not sealed for this place with one of the keys; for what is neither text nor bytes, too,
   * which somebody else has put there.
   */
  open(table: string, key: string, stored: SqlValue): Plain {
    try {
      return this.#open(table, key, stored instanceof Uint8Array ? stored : String(stored));
    } catch (cause) {
      throw new SluiceError('SLUICE_DECRYPT', `the value of ${show(key)} in ${table}: ${messageOf(cause)}`, { cause });
    }
  }

  /** Whether a stored value has to be sealed again to be as the active key makes it. */
  isStale(stored: Plain): boolean {
    const id = typeof stored === 'string' ? undefined : keyIdOf(stored);
    if (id === undefined) return this.accepts !== 'nothing';
    return id !== this.keyring.active.id && this.keyring.has(id);
  }

  #open(table: string, key: string, stored: Plain): Plain {
    if (this.accepts !== 'nothing') {
      if (typeof stored === 'string') return stored;
      if (keyIdOf(stored) === undefined) return this.#openAccepted(stored);
    }
    if (typeof stored === 'string') throw notEncrypted();
    const plain = this.keyring.open(stored, contextOf(table, key));
    return plain[0] === TEXT ? plain.toString('utf8', 1) : Uint8Array.from(plain.subarray(1));
  }

  #openAccepted(stored: Uint8Array): Plain {
    for (const key of this.keyring.keys) {
      const plain = openNanaSqlite(key, stored);
      if (plain !== undefined) return plain.toString('utf8');
    }
    // After those of NanaSQLite, whose file may have been opened without its key once.
    if (this.accepts === 'plain') return stored;
    throw new SluiceError('SLUICE_DECRYPT', 'none of the keys fits, as NanaSQLite encrypts');
  }
}

function contextOf(table: string, key: string): string {
  return `value\0${foldName(table)}\0${key}`;
}
