import { randomBytes } from 'node:crypto';
import { SluiceError } from '../errors.ts';
import { AEADS, ALGORITHMS, type Algorithm, NONCE_BYTES } from './algorithm.ts';
import { derive, type KeyMaterial } from './key.ts';

/**
 * What is encrypted looks like this, whatever it is: a value, a frame of the log, a dead letter.
 *
 *      0  3 bytes   "SLE"
 *      3  u8        the algorithm: 1 AES-256-GCM, 2 ChaCha20-Poly1305, 3 Fernet
 *      4  8 bytes   id of the key
 *     12  12 bytes  salt of the session
 *     24  u32       number within the session, little-endian
 *     28  …         ciphertext and tag; of Fernet, the token before its base64
 *
 * Associated data are the bytes before, and what the caller says that it is: `value`, table and key, say.
 *
 * Every session draws a key of its own from the key that was given, with a random salt, and then counts: a nonce cannot come twice,
 * however many writes there are. Random nonces under one key, as is usual, must not be more than 2^32
 * (https://nvlpubs.nist.gov/nistpubs/Legacy/SP/nistspecialpublication800-38d.pdf, 8.3): twelve hours at a hundred thousand a second.
 */
const MAGIC = Buffer.from('SLE', 'latin1');
const HEAD_BYTES = 28;
const ID_OFFSET = 4;
const SALT_OFFSET = 12;
const SALT_BYTES = 12;
const NUMBER_OFFSET = 24;
const NUMBER_MAX = 0xffff_ffff;

/** Sessions whose keys are kept at hand. */
const SESSIONS_MAX = 1_000;

/** Keys to encrypt and decrypt with. Each thread has one of its own, and so sessions of its own. */
export class Keyring {
  readonly #keys = new Map<string, KeyMaterial>();
  readonly #sessions = new Map<string, Uint8Array>();
  #active: KeyMaterial;
  #session: Session;

  /** The first is the one to encrypt with. */
  constructor(keys: readonly [KeyMaterial, ...KeyMaterial[]]) {
    for (const key of keys) this.#keys.set(key.id, key);
    this.#active = keys[0];
    this.#session = startSession(this.#active);
  }

  get active(): KeyMaterial {
    return this.#active;
  }

  get keys(): readonly [KeyMaterial, ...KeyMaterial[]] {
    return [this.#active, ...[...this.#keys.values()].filter((key) => key !== this.#active)];
  }

  has(id: string): boolean {
    return this.#keys.has(id);
  }

  /** Encrypts with this key from now on. */
  activate(key: KeyMaterial): void {
    this.#keys.set(key.id, key);
    this.#active = key;
    this.#session = startSession(key);
  }

  seal(plain: Uint8Array, context: string): Buffer {
    if (this.#session.number >= NUMBER_MAX) this.#session = startSession(this.#active);
    const session = this.#session;
    const { head } = session;
    head.writeUInt32LE(session.number++, NUMBER_OFFSET);
    return AEADS[this.#active.algorithm].seal(session.key, nonceOf(head), plain, associated(head, context), head);
  }

  /** Throws `SLUICE_DECRYPT` unless these bytes were sealed with a key of this ring, for this context, and are as they were. */
  open(sealed: Uint8Array, context: string): Buffer {
    const id = keyIdOf(sealed);
    if (id === undefined) throw notEncrypted();
    const key = this.#keys.get(id);
    if (key === undefined) {
      throw new SluiceError(
        'SLUICE_DECRYPT',
        `it is encrypted with the key ${id}, which is not among those that were given: add it to encryption.previous`,
      );
    }
    const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.length);
    const head = bytes.subarray(0, HEAD_BYTES);
    const aead = AEADS[key.algorithm];
    const plain = aead.open(
      this.#sessionKey(key, head),
      nonceOf(head),
      bytes.subarray(HEAD_BYTES),
      associated(head, context),
    );
    if (plain !== undefined) return plain;
    throw new SluiceError(
      'SLUICE_DECRYPT',
      `it was encrypted with the key ${id}, and has been changed since, or moved here from another place`,
    );
  }

  #sessionKey(key: KeyMaterial, head: Buffer): Uint8Array {
    const name = head.toString('latin1', ID_OFFSET, NUMBER_OFFSET);
    let found = this.#sessions.get(name);
    if (found === undefined) {
      found = sessionKeyOf(key, head.subarray(SALT_OFFSET, NUMBER_OFFSET));
      if (this.#sessions.size >= SESSIONS_MAX) this.#sessions.clear();
      this.#sessions.set(name, found);
    }
    return found;
  }
}

export function notEncrypted(): SluiceError {
  return new SluiceError('SLUICE_DECRYPT', 'it is not encrypted, and here everything is: somebody else wrote it');
}

/** The id of the key that something is encrypted with; `undefined` for what is not. */
export function keyIdOf(bytes: Uint8Array): string | undefined {
  if (bytes.length < HEAD_BYTES || MAGIC.some((byte, i) => bytes[i] !== byte)) return undefined;
  if (algorithmOf(bytes[3] as number) === undefined) return undefined;
  return Buffer.from(bytes.buffer, bytes.byteOffset + ID_OFFSET, SALT_OFFSET - ID_OFFSET).toString('hex');
}

interface Session {
  readonly head: Buffer;
  readonly key: Uint8Array;
  number: number;
}

function startSession(key: KeyMaterial): Session {
  const head = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(head);
  head[3] = ALGORITHMS.indexOf(key.algorithm) + 1;
  head.write(key.id, ID_OFFSET, 'hex');
  const salt = randomBytes(SALT_BYTES);
  salt.copy(head, SALT_OFFSET);
  return { head, key: sessionKeyOf(key, salt), number: 0 };
}

function sessionKeyOf({ algorithm, secret }: KeyMaterial, salt: Uint8Array): Uint8Array {
  return derive(secret, salt, `sluice session ${algorithm}`, 32);
}

function algorithmOf(number: number): Algorithm | undefined {
  return ALGORITHMS[number - 1];
}

const nonce = Buffer.alloc(NONCE_BYTES);
let scratch = Buffer.alloc(1024);

/** The number, and zeroes: the key is the session's alone. Holds until the next call, as what follows does. */
function nonceOf(head: Buffer): Buffer {
  head.copy(nonce, 0, NUMBER_OFFSET, HEAD_BYTES);
  return nonce;
}

function associated(head: Buffer, context: string): Buffer {
  // UTF-8 takes three bytes for a UTF-16 unit, at most.
  const bytes = HEAD_BYTES + context.length * 3;
  if (scratch.length < bytes) scratch = Buffer.alloc(bytes);
  head.copy(scratch);
  return scratch.subarray(0, HEAD_BYTES + scratch.write(context, HEAD_BYTES));
}
