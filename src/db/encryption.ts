import {
  type Accepts,
  type KeyMaterial,
  Keyring,
  type KeySource,
  newDerivation,
  openNanaSqlite,
  type Secrets,
  type ValueCipher,
} from '../base/encryption/index.ts';
import { messageOf, SluiceError } from '../base/errors.ts';
import type { KeysFound, StoredKey, Unlocked } from '../store/store.ts';

/** What the proof of a key is bound to. */
const PROOF = 'proof';

/**
 * The keys that a database is opened with: those that were given, if they are all that it names. What was given first encrypts from
 * now on; a database that names no key yet takes it.
 *
 * Throws `SLUICE_DECRYPT` where a key is missing or a wrong one: before a value was read, and with nothing written but what SQLite does by
 * itself when a file is opened and closed.
 */
export async function unlock(given: readonly KeySource[], found: KeysFound): Promise<Unlocked | undefined> {
  const [first] = given;
  if (first === undefined) {
    if (found.keys.length === 0) return undefined;
    throw new SluiceError(
      'SLUICE_DECRYPT',
      `the database is encrypted with the key ${activeOf(found).id}: pass it as encryption.key or encryption.passphrase`,
    );
  }
  const known = await materialsOf(given, found.keys);
  assertComplete(known, found.keys);
  const stored = found.keys.map(({ id }) => id);
  const active = known.get(first)?.[0] ?? (await newKey(first));
  const keys = [active, ...[...known.values()].flat().filter((key) => key.id !== active.id)] as const;
  const accepts = found.keys.length === 0 ? found.before : acceptedBy(new Keyring(keys), activeOf(found));
  if (found.sample !== undefined) assertFits(keys, found.sample);
  const isStored = stored.includes(active.id) && activeOf(found).id === active.id;
  const secrets: Secrets = { keys: [active, ...keys.slice(1)], accepts };
  return { secrets, store: isStored ? undefined : toStore(active, accepts) };
}

/**
 * The keys to go on with when a copy takes the place of an open database: those that it has, if they are all that the copy needs. What encrypted before encrypts from then on.
 */
export function unlockCopy(cipher: ValueCipher | undefined, found: KeysFound): Unlocked | undefined {
  if (cipher === undefined) {
    if (found.keys.length === 0) return undefined;
    throw new SluiceError(
      'SLUICE_DECRYPT',
      `what is to be restored is encrypted with the key ${activeOf(found).id}, and the database is open without one: open it with that key`,
    );
  }
  const { keyring } = cipher;
  const missing = found.keys.filter(({ id }) => !keyring.has(id));
  if (missing.length > 0) {
    throw new SluiceError(
      'SLUICE_DECRYPT',
      `what is to be restored is encrypted with the key ${missing.map(({ id }) => id).join(', ')}: open the database with it, as encryption.previous`,
    );
  }
  const accepts = found.keys.length === 0 ? found.before : acceptedBy(keyring, activeOf(found));
  const { active } = keyring;
  const isStored = found.keys.length > 0 && activeOf(found).id === active.id;
  return { secrets: { keys: keyring.keys, accepts }, store: isStored ? undefined : toStore(active, accepts) };
}

/** A key as the database is to name it. */
export function toStore(key: KeyMaterial, accepts: Accepts): StoredKey {
  const { id, algorithm, derivation } = key;
  const proof = new Keyring([key]).seal(Buffer.from(accepts), PROOF);
  return { id, algorithm, derivation, active: true, proof };
}

/** The key to go to: the one that encrypts already, where the source is that, or a new one. */
export async function keyToGoTo(source: KeySource, active: KeyMaterial): Promise<KeyMaterial> {
  if (source.isPassphrase && active.derivation !== undefined && active.algorithm === source.algorithm) {
    const { id } = await source.material(active.derivation);
    if (id === active.id) return active;
  }
  return newKey(source);
}

/** A key that the database does not name yet. */
async function newKey(source: KeySource): Promise<KeyMaterial> {
  const derivation = source.isPassphrase ? newDerivation() : undefined;
  return { ...(await source.material(derivation)), derivation };
}

/**
 * Which keys each source is, of those that the database names, the active one first; and of the others those that need no salt. One
 * passphrase may be several keys, each with a salt of its own.
 */
async function materialsOf(
  given: readonly KeySource[],
  stored: readonly StoredKey[],
): Promise<Map<KeySource, readonly KeyMaterial[]>> {
  const known = new Map<KeySource, readonly KeyMaterial[]>();
  const activeFirst = [...stored].sort((a, b) => Number(b.active) - Number(a.active));
  for (const source of given) {
    if (!source.isPassphrase) {
      known.set(source, [source.materialNow()]);
      continue;
    }
    const keys: KeyMaterial[] = [];
    for (const { id, derivation, algorithm } of activeFirst) {
      if (derivation === undefined || algorithm !== source.algorithm) continue;
      const key = await source.material(derivation);
      if (key.id === id) keys.push({ ...key, derivation });
    }
    known.set(source, keys);
  }
  return known;
}

function assertComplete(known: ReadonlyMap<KeySource, readonly KeyMaterial[]>, stored: readonly StoredKey[]): void {
  const ids = [...known.values()].flat().map(({ id }) => id);
  const missing = stored.filter(({ id }) => !ids.includes(id));
  if (missing.length === 0) return;
  const names = missing.map(({ id, algorithm }) => `${id} (${algorithm})`).join(', ');
  throw new SluiceError(
    'SLUICE_DECRYPT',
    missing.length === stored.length
      ? `the key or passphrase is a wrong one: the database is encrypted with the key ${names}`
      : `the database has values that are still encrypted with the key ${names}: add it to encryption.previous, and let arotateKey() come to its end`,
  );
}

function assertFits(keys: readonly KeyMaterial[], sample: Uint8Array): void {
  if (keys.some((key) => openNanaSqlite(key, sample) !== undefined)) return;
  throw new SluiceError('SLUICE_DECRYPT', 'the key is a wrong one: it does not open what NanaSQLite has written');
}

function acceptedBy(keyring: Keyring, { id, proof }: StoredKey): Accepts {
  try {
    return keyring.open(proof, PROOF).toString('utf8') as Accepts;
  } catch (cause) {
    throw new SluiceError('SLUICE_DECRYPT', `the proof of the key ${id}: ${messageOf(cause)}`, { cause });
  }
}

function activeOf({ keys }: KeysFound): StoredKey {
  return keys.find(({ active }) => active) ?? (keys[0] as StoredKey);
}
