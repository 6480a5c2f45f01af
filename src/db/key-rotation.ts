import { backoffMs } from '../base/backoff.ts';
import { type EncryptionKey, type KeySource, readKey, showKind, type ValueCipher } from '../base/encryption/index.ts';
import { SluiceError } from '../base/errors.ts';
import { foldName } from '../base/fold-name.ts';
import { isPlainObject, OptionReader, show } from '../base/options.ts';
import { checkWait, sleep } from '../base/waiting.ts';
import { type RotationStep, type RotationStepped, StoreFailure, toCallerError } from '../store/store.ts';
import type { Core } from './core.ts';
import { keyToGoTo, toStore } from './encryption.ts';

const PAUSE_FIRST_MS = 20;
const PAUSE_MAX_MS = 1_000;

/** How far a rotation is, and what it has done. */
export interface RotationProgress {
  /** Values that were encrypted anew. */
  readonly values: number;
  /** Dead letters that were encrypted anew. */
  readonly deadLetters: number;
}

/** Options of {@link Database.arotateKey}. */
export interface RotationOptions {
  /**
   * How many values are encrypted anew in one transaction, fewer where they are large; writes that wait get their turn in between. Integer, 1 to 100,000.
   * @defaultValue 1000
   */
  readonly batchSize?: number | undefined;
  /** Is told after each transaction. */
  readonly onProgress?: ((progress: RotationProgress) => void) | undefined;
  /** Ends the rotation between two transactions, with `SLUICE_ABORTED`. Called again, it goes on. */
  readonly signal?: AbortSignal | undefined;
}

/** What a rotation works on. */
export interface RotationParts {
  readonly core: Core;
  readonly cipher: ValueCipher;
  /** Folded names of the tables that are to stay as they are: with a key of their own, or none. */
  readonly except: () => readonly string[];
}

/** The key to go to, checked; `undefined` to go on with the one that encrypts already. */
export function readRotation(
  to: EncryptionKey | undefined,
  given: RotationOptions,
): { source: KeySource | undefined; batchSize: number } {
  const options = new OptionReader(given);
  const batchSize = options.integer('batchSize', { min: 1, max: 100_000, fallback: 1_000 });
  const onProgress = options.any('onProgress');
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    options.refuse('onProgress', `must be a function, not ${show(onProgress)}`);
  }
  options.any('signal');
  if (to !== undefined && !isPlainObject(to)) {
    options.refuse('the key', `must be an object with a key or a passphrase, not ${showKind(to)}`);
  }
  options.finish('arotateKey');
  checkWait({ signal: given.signal });
  if (to === undefined) return { source: undefined, batchSize };
  const key = new OptionReader(to);
  const source = readKey(key);
  key.finish('arotateKey');
  return { source, batchSize };
}

/** Brings everything that is encrypted to one key: see {@link Database.arotateKey}. */
export async function rotateKey(
  { core, cipher, except }: RotationParts,
  to: EncryptionKey | undefined,
  given: RotationOptions,
): Promise<RotationProgress> {
  const { source, batchSize: limit } = readRotation(to, given);
  const { store, flusher } = core;
  const done = { values: 0, deadLetters: 0 };
  const check = () => {
    core.assertOpen();
    if (given.signal?.aborted === true) {
      throw new SluiceError('SLUICE_ABORTED', 'the rotation was ended: call arotateKey() again, and it goes on', {
        cause: given.signal.reason,
      });
    }
  };
  const step = async (next: RotationStep): Promise<RotationStepped> => {
    check();
    for (let attempt = 1; ; attempt++) {
      try {
        return await store.rotate(next);
      } catch (error) {
        const passes = error instanceof StoreFailure && (error.failure === 'transient' || error.failure === 'space');
        if (!passes) throw toCallerError(error);
        await sleep(backoffMs(attempt, PAUSE_FIRST_MS, PAUSE_MAX_MS, core.random), core.clock, given.signal);
        check();
      }
    }
  };
  const told = () => given.onProgress?.({ ...done });

  const { keyring } = cipher;
  if (source !== undefined) {
    const material = await keyToGoTo(source, keyring.active);
    if (material.id !== keyring.active.id) {
      await step({ do: 'begin', key: toStore(material, cipher.accepts), material });
    }
    keyring.activate(material);
  }
  // What was accepted before is encrypted with the key before.
  await flusher.barrier('arotateKey', { signal: given.signal });
  const { tables } = await step({ do: 'tables' });
  const spared = except();
  const rewriteDeadLetters = async () => {
    let after: number | undefined = 0;
    do {
      const { last, rewritten }: RotationStepped = await step({ do: 'dead-letters', after, limit, except: spared });
      after = last as number | undefined;
      done.deadLetters += rewritten;
      told();
    } while (after !== undefined);
  };
  // Before the values: what a retry brings back meanwhile is anew, or in a table that is still to come.
  await rewriteDeadLetters();
  for (const table of tables) {
    if (spared.includes(foldName(table))) continue;
    let after: string | undefined;
    do {
      const { last, rewritten } = await step({ do: 'values', table, after, limit });
      after = last as string | undefined;
      done.values += rewritten;
      told();
    } while (after !== undefined);
  }
  // And what was imported meanwhile.
  await rewriteDeadLetters();
  await step({ do: 'finish', key: toStore(keyring.active, 'nothing') });
  cipher.accepts = 'nothing';
  // What they hold from before may be what is not accepted any more.
  for (const cache of core.caches) cache.clear();
  return done;
}
