import { hkdfSync, randomBytes, scrypt } from 'node:crypto';
import { promisify } from 'node:util';
import type { OptionReader } from '../options.ts';
import { isPlainObject, show } from '../options.ts';
import { ALGORITHMS, type Algorithm } from './algorithm.ts';

/** A key to encrypt with: `key` or `passphrase`, one of them. */
export interface EncryptionKey {
  /**
   * The key: 32 bytes from a good source of random numbers, or the base64 of such (either alphabet). 16 and 24 bytes are taken for
   * files that NanaSQLite has written with AES-128 and AES-192.
   */
  readonly key?: Uint8Array | string | undefined;
  /**
   * A passphrase, from which the key is made with scrypt (https://www.rfc-editor.org/rfc/rfc7914), as slow as it has to be: `open`
   * takes some 0.3 s longer. Salt and parameters are stored in the database. At least 8 characters, in `open` alone.
   */
  readonly passphrase?: string | undefined;
  /**
   * How it encrypts. `'fernet'` (AES-128-CBC with HMAC) is for those who have to; the other two are faster, and shorter.
   * @defaultValue 'aes-256-gcm'
   */
  readonly algorithm?: Algorithm | undefined;
}

/** Options of encryption at rest. */
export interface EncryptionOptions extends EncryptionKey {
  /** Keys that some of the data may still be encrypted with: the one before, until `arotateKey` has come to its end. */
  readonly previous?: readonly EncryptionKey[] | undefined;
}

/** How a key is made from a passphrase. */
export interface KeyDerivation {
  readonly salt: string;
  readonly N: number;
  readonly r: number;
  readonly p: number;
}

/** A key as threads hand it to each other. */
export interface KeyMaterial {
  /** Names the key without telling it: 8 bytes, hexadecimal. */
  readonly id: string;
  readonly algorithm: Algorithm;
  readonly secret: Uint8Array;
  /** How it was made, of a passphrase. */
  readonly derivation?: KeyDerivation | undefined;
}

const KEY_LENGTHS = [16, 24, 32];
const PASSPHRASE_MIN = 8;

/** What OWASP recommends: 128 MiB and about 0.3 s. */
const SCRYPT = { N: 2 ** 17, r: 8, p: 1 };
const SCRYPT_MEMORY_MAX = 2 ** 28;

const scryptOf = promisify(scrypt) as (
  passphrase: string,
  salt: Uint8Array,
  length: number,
  options: object,
) => Promise<Buffer>;

/** A key as it was given. What it is made of stays inside, also when it is printed. */
export class KeySource {
  readonly algorithm: Algorithm;
  readonly #secret: Uint8Array | undefined;
  readonly #passphrase: string;

  constructor(algorithm: Algorithm, secret: Uint8Array | undefined, passphrase: string) {
    this.algorithm = algorithm;
    this.#secret = secret;
    this.#passphrase = passphrase;
  }

  get isPassphrase(): boolean {
    return this.#secret === undefined;
  }

  /** The key; of a passphrase, as it is made with this salt and these parameters. */
  async material(derivation: KeyDerivation | undefined): Promise<KeyMaterial> {
    if (this.#secret !== undefined || derivation === undefined) return this.materialNow();
    const { salt, ...cost } = derivation;
    const options = { ...cost, maxmem: SCRYPT_MEMORY_MAX };
    return materialOf(this.algorithm, await scryptOf(this.#passphrase, Buffer.from(salt, 'hex'), 32, options));
  }

  /** The key that was given as one. */
  materialNow(): KeyMaterial {
    if (this.#secret === undefined) throw new Error('a passphrase is no key before it has a salt');
    return materialOf(this.algorithm, this.#secret);
  }
}

export function newDerivation(): KeyDerivation {
  return { salt: randomBytes(16).toString('hex'), ...SCRYPT };
}

function materialOf(algorithm: Algorithm, secret: Uint8Array): KeyMaterial {
  return { id: derive(secret, '', `sluice key id ${algorithm}`, 8).toString('hex'), algorithm, secret };
}

/** A key of its own for each purpose (https://www.rfc-editor.org/rfc/rfc5869). */
export function derive(secret: Uint8Array, salt: Uint8Array | '', purpose: string, length: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, salt, purpose, length));
}

/** The keys of the option `encryption`, the one to write with first; `null` where it says so, `undefined` where it says nothing. */
export function readEncryption(options: OptionReader): readonly KeySource[] | null | undefined {
  const given = options.any('encryption');
  if (given === undefined || given === null) return given;
  if (!isPlainObject(given)) {
    options.refuse('encryption', `must be null, or an object with a key or a passphrase, not ${showKind(given)}`);
    return undefined;
  }
  const encryption = options.nested('encryption');
  const previous = encryption.any('previous') ?? [];
  const first = readKey(encryption);
  if (!Array.isArray(previous)) {
    encryption.refuse('previous', `must be a list of keys, not ${showKind(previous)}`);
    return undefined;
  }
  const others = previous.map((each: unknown, i) => {
    if (isPlainObject(each)) return readKey(encryption.element(`previous[${i}]`, each));
    encryption.refuse(`previous[${i}]`, `must be an object with a key or a passphrase, not ${showKind(each)}`);
    return undefined;
  });
  const keys = [first, ...others].filter((key) => key !== undefined);
  return keys.length === 1 + others.length ? keys : undefined;
}

/** One key; what is wrong with it is said without it. */
export function readKey(options: OptionReader): KeySource | undefined {
  const algorithm = options.oneOf('algorithm', ALGORITHMS, 'aes-256-gcm');
  const key = options.any('key');
  const passphrase = options.any('passphrase');
  if ((key === undefined) === (passphrase === undefined)) {
    options.refuse('key', 'or a passphrase must be given, one of the two');
    return undefined;
  }
  if (key === undefined) {
    if (typeof passphrase === 'string' && passphrase.length >= PASSPHRASE_MIN) {
      return new KeySource(algorithm, undefined, passphrase);
    }
    options.refuse('passphrase', `must be a string of at least ${PASSPHRASE_MIN} characters`);
    return undefined;
  }
  const secret = bytesOf(key);
  if (
    secret !== undefined &&
    KEY_LENGTHS.includes(secret.length) &&
    (secret.length === 32 || algorithm === 'aes-256-gcm')
  ) {
    return new KeySource(algorithm, secret, '');
  }
  options.refuse('key', "must be 32 bytes, or their base64: randomBytes(32).toString('base64') makes one");
  return undefined;
}

/** What stands where an object with a key is due, and may be the key itself: not what it is. */
export function showKind(given: unknown): string {
  return typeof given === 'string' ? 'a string' : show(given);
}

function bytesOf(key: unknown): Uint8Array | undefined {
  if (key instanceof Uint8Array) return Uint8Array.from(key);
  if (typeof key !== 'string' || !/^[A-Za-z0-9+/_-]+={0,2}$/.test(key)) return undefined;
  return Uint8Array.from(Buffer.from(key, 'base64'));
}
