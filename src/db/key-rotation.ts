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

/** Brings everything that is encrypted to one key: see {@link Database.arotateKey}. */
export async function rotateKey(
  parts: RotationParts,
  to: EncryptionKey | undefined,
  options: RotationOptions,
): Promise<RotationProgress> {
  const batchSize = readOptions(to, options);
  const source = to === undefined ? undefined : readNewKey(to);
  const rotation = new Rotation(parts, { ...options, batchSize });
  if (source !== undefined) await rotation.begin(source);
  await rotation.settle();
  // Before the values: what a retry brings back meanwhile is anew, or in a table that is still to come.
  await rotation.rewriteDeadLetters();
  await rotation.rewriteTables();
  // And what was imported meanwhile.
  await rotation.rewriteDeadLetters();
  await rotation.finish();
  return rotation.progress;
}

/** Checks everything but the key itself; returns the size of a batch. */
function readOptions(to: EncryptionKey | undefined, given: RotationOptions): number {
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
  return batchSize;
}

function readNewKey(given: EncryptionKey): KeySource | undefined {
  const key = new OptionReader(given);
  const source = readKey(key);
  key.finish('arotateKey');
  return source;
}

/** One run, step by step: each is a transaction of the writer thread. */
class Rotation {
  readonly #parts: RotationParts;
  readonly #options: RotationOptions & { readonly batchSize: number };
  #values = 0;
  #deadLetters = 0;

  constructor(parts: RotationParts, options: RotationOptions & { readonly batchSize: number }) {
    this.#parts = parts;
    this.#options = options;
  }

  get progress(): RotationProgress {
    return { values: this.#values, deadLetters: this.#deadLetters };
  }

  /** Encrypts with another key from now on: on the writer thread first, which writes its name down. */
  async begin(source: KeySource): Promise<void> {
    const { keyring, accepts } = this.#parts.cipher;
    const material = await keyToGoTo(source, keyring.active);
    if (material.id !== keyring.active.id) {
      await this.#step({ do: 'begin', key: toStore(material, accepts), material });
    }
    keyring.activate(material);
  }

  /** What was accepted before is encrypted with the key before. */
  async settle(): Promise<void> {
    await this.#parts.core.flusher.barrier('arotateKey', { signal: this.#options.signal });
  }

  async rewriteTables(): Promise<void> {
    const { except } = this.#parts;
    const { tables } = await this.#step({ do: 'tables' });
    const spared = except();
    for (const table of tables) if (!spared.includes(foldName(table))) await this.#rewriteTable(table);
  }

  async #rewriteTable(table: string): Promise<void> {
    let after: string | undefined;
    do {
      const { last, rewritten } = await this.#step({ do: 'values', table, after, limit: this.#options.batchSize });
      after = last as string | undefined;
      this.#values += rewritten;
      this.#tell();
    } while (after !== undefined);
  }

  async rewriteDeadLetters(): Promise<void> {
    const [limit, except] = [this.#options.batchSize, this.#parts.except()];
    let after: number | undefined = 0;
    do {
      const { last, rewritten }: RotationStepped = await this.#step({ do: 'dead-letters', after, limit, except });
      after = last as number | undefined;
      this.#deadLetters += rewritten;
      this.#tell();
    } while (after !== undefined);
  }

  /** The other keys are forgotten, and what is not encrypted is read no more. */
  async finish(): Promise<void> {
    const { core, cipher } = this.#parts;
    await this.#step({ do: 'finish', key: toStore(cipher.keyring.active, 'nothing') });
    cipher.accepts = 'nothing';
    // What they hold from before may be what is not accepted any more.
    for (const cache of core.caches) cache.clear();
  }

  #tell(): void {
    this.#options.onProgress?.(this.progress);
  }

  /** Tries again where it may go better then. */
  async #step(step: RotationStep): Promise<RotationStepped> {
    const { store, clock, random } = this.#parts.core;
    for (let attempt = 1; ; attempt++) {
      this.#assertGoingOn();
      try {
        return await store.rotate(step);
      } catch (error) {
        const passes = error instanceof StoreFailure && (error.failure === 'transient' || error.failure === 'space');
        if (!passes) throw toCallerError(error);
        await sleep(backoffMs(attempt, PAUSE_FIRST_MS, PAUSE_MAX_MS, random), clock, this.#options.signal);
      }
    }
  }

  #assertGoingOn(): void {
    this.#parts.core.assertOpen();
    const { signal } = this.#options;
    if (signal?.aborted !== true) return;
    throw new SluiceError('SLUICE_ABORTED', 'the rotation was ended: call arotateKey() again, and it goes on', {
      cause: signal.reason,
    });
  }
}
