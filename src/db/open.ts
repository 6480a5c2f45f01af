import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { EventEmitter } from 'eventemitter3';
import { type Clock, systemClock } from '../base/clock.ts';
import { ValueCipher } from '../base/encryption/index.ts';
import { codeOf, messageOf, SluiceError } from '../base/errors.ts';
import type { FileSystem } from '../base/file-system.ts';
import { Kind } from '../base/frame/index.ts';
import { nodeFileSystem } from '../base/node-file-system.ts';
import { show } from '../base/options.ts';
import { type Random, systemRandom } from '../base/random.ts';
import { type CheckTarget, DeadLetterQueue } from '../dlq/index.ts';
import { type Emit, Engine, Health } from '../engine/index.ts';
import { AppendLog, Recovery } from '../engine/log/index.ts';
import { Flusher } from '../flush/index.ts';
import { ownerOfExpiries } from '../store/expiry-table.ts';
import { acquireLock, type Spawn, SqliteStore } from '../store/sqlite/index.ts';
import { Database, type Events } from './database.ts';
import { diagnosticsOf } from './diagnostics.ts';
import { unlock } from './encryption.ts';
import type { DatabaseEvents, EventHandlers } from './events.ts';
import { DatabaseLog } from './logging.ts';
import { checkName } from './names.ts';
import { type OpenOptions, type ResolvedOptions, resolveOptions } from './options.ts';
import { realFile } from './real-file.ts';
import type { Stored } from './schema.ts';
import { checkStagedSql } from './sql/statements.ts';
import { tell } from './tell.ts';

/** Share of the staging limits from which on `set` returns `false`. */
const HIGH_WATER_RATIO = 0.5;

/** @internal What the machine provides, for tests to take its place. */
export interface Machine {
  readonly clock: Clock;
  readonly random: Random;
  readonly fileSystem: FileSystem;
  readonly spawn?: Spawn;
}

const thisMachine: Machine = { clock: systemClock, random: systemRandom, fileSystem: nodeFileSystem };

/**
 * Opens a database, and makes it if there is none. Recovers what a crash has left in the log: it can be read at once, and
 * is applied in the background.
 *
 * Next to `path` there will be SQLite's `-wal` and `-shm`, and the folder `<path>-log`. `':memory:'` is a private temporary
 * folder that goes away at close.
 *
 * Errors: `SLUICE_INVALID_OPTION` with all problems at once, `SLUICE_LOCKED` where another process has the file,
 * `SLUICE_DECRYPT` where its key is missing or a wrong one, `SLUICE_LOG_CORRUPT` where the log is damaged, `SLUICE_LOG_IO` where it cannot be read, `SLUICE_STORE` where SQLite cannot
 * open the file, `SLUICE_NATIVE` where better-sqlite3 did not load, `SLUICE_UNSUPPORTED` for a format of another version.
 *
 * @example
 * ```ts
 * import { open } from 'sluicedb';
 *
 * const db = await open(':memory:', { flush: { intervalMs: 250 } });
 * try {
 *   db.set('a', 1);
 *   await db.aset('b', { two: 2 });
 *   console.log(db.size); // 2
 * } finally {
 *   await db.close();
 * }
 * ```
 */
export async function open<T = unknown, In = T, Coerce extends boolean = boolean>(
  path: string,
  options: OpenOptions<T, In, Coerce> = {},
): Promise<Database<Stored<T, In, Coerce>, In>> {
  return openOn(thisMachine, path, options);
}

/** @internal The same on another machine. */
export async function openOn<T = unknown, In = T, Coerce extends boolean = boolean>(
  machine: Machine,
  path: string,
  given: OpenOptions<T, In, Coerce>,
): Promise<Database<Stored<T, In, Coerce>, In>> {
  if (typeof path !== 'string' || path === '') {
    throw new SluiceError('SLUICE_INVALID_OPTION', `path must be a file name or ':memory:', not ${show(path)}`);
  }
  const isMemory = path === ':memory:';
  const options = resolveOptions(given, isMemory);
  assertLittleEndian();
  if (isMemory) return openTemporary(machine, options);
  return openFile(machine, await realFile(path), options, async () => {});
}

/** Folders of the `:memory:` databases that are open. */
const temporary = new Set<string>();

function removeTemporary(): void {
  for (const folder of temporary) rmSync(folder, { recursive: true, force: true });
}

async function openTemporary<T, In>(machine: Machine, options: ResolvedOptions): Promise<Database<T, In>> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-'));
  if (temporary.size === 0) process.on('exit', removeTemporary);
  temporary.add(folder);
  const release = async () => {
    await machine.fileSystem.removeDirectory(folder);
    temporary.delete(folder);
    if (temporary.size === 0) process.off('exit', removeTemporary);
  };
  try {
    return await openFile(machine, join(folder, 'memory.db'), options, release);
  } catch (error) {
    await release();
    throw error;
  }
}

/** Builds and wires everything: nothing else in Sluice knows of all its parts. */
async function openFile<T, In>(
  machine: Machine,
  path: string,
  options: ResolvedOptions,
  release: () => Promise<void>,
): Promise<Database<T, In>> {
  const { clock, random, fileSystem, spawn } = machine;
  const events: Events = new EventEmitter<DatabaseEvents>();
  const logging = DatabaseLog.of(options.logger, { path, durability: options.durability, clock });
  const emit = emitterOf(events, diagnosticsOf(path, clock), logging);
  const directory = `${path}-log`;
  await makeLogFolder(fileSystem, directory);
  const lock = await acquireLock(directory, path, options.lockTimeoutMs, fileSystem, clock);
  let store: SqliteStore | undefined;
  let cipher: ValueCipher | undefined;
  try {
    const health = new Health(emit);
    const { breaker, ...queueLimits } = options.dlq;
    store = await SqliteStore.open({
      path,
      owner: randomUUID(),
      readers: options.readers,
      queueLimits,
      breaker,
      spawn,
      clock,
      fileSystem,
      unlock: async (found) => {
        const unlocked = await unlock(options.keys, found);
        cipher = unlocked && new ValueCipher(unlocked.secrets);
        return unlocked;
      },
      onWriterRestart: (reason) => emit('writer-restart', { reason }),
      onCheckpoint: (checkpoint) => emit('checkpoint', checkpoint),
      onLost: (failure) => health.fail('flush', failure),
    });
    const { databaseId, epoch, appliedSeq } = store.facts;

    const start = clock.elapsed();
    const place = { fileSystem, directory, databaseId, epoch };
    const recovery = await Recovery.scan({
      ...place,
      appliedSeq,
      policy: options.recovery,
      now: new Date(clock.now()),
      cipher,
    });
    await recovery.repair();
    logging?.recovered(recovery.report);
    const log = new AppendLog(
      { ...place, segmentBytes: options.log.segmentBytes, keyring: cipher?.keyring },
      recovery.start,
    );

    const engine = new Engine(engineOptions(options), log, appliedSeq, { health, clock, random, emit });
    const flusher = new Flusher(engine, store, options.flush, { clock, random, emit });
    const queue = new DeadLetterQueue({
      store: store.deadLetters,
      limits: queueLimits,
      atOpen: store.facts.queue,
      clock,
      random,
      emit,
      settle: (what, wait) => flusher.barrierOrStall(what, wait),
      nudge: () => flusher.nudge(),
      take: () => flusher.takeStalled(),
      checkTarget: checkImported,
      cipher,
      assertOpen: () => engine.health.assertOpen(),
      assertAccepting: () => engine.assertAccepting(),
      assertMayWait: (what) => engine.assertMayWait(what),
    });
    flusher.onResult = (result) => queue.onBatch(result);
    flusher.obstacle = () => queue.obstacle();
    const core = {
      engine,
      flusher,
      store,
      clock,
      random,
      scanMaxAgeMs: options.scanMaxAgeMs,
      reads: { staging: 0, cache: 0, sqlite: 0, miss: 0 },
      caches: [],
      indirect: { lastSeq: 0 },
    };
    const releaseAll = async () => {
      lock.release();
      await release();
    };
    const { report } = recovery;
    const recovered = {
      durationMs: 0,
      segments: report.segments,
      tornBytes: report.tornBytes,
      setAside: report.setAside.length,
      damaged: report.damage !== undefined,
    };
    const db = new Database<T, In>({
      path,
      options: Object.freeze({ ...options, keys: [] }),
      cipher,
      core,
      queue,
      events,
      log: logging,
      recovery: recovered,
      release: releaseAll,
    });

    for await (const frame of recovery.frames()) {
      engine.adopt(frame);
      // A backlog larger than staging goes down while it is read. Where the flush stands still somebody has to do something,
      // and needs the database for it: then all of it, which the log's own limit bounds, is taken into memory.
      if (engine.admission.isHigh) await flusher.halveOrStall('recovery');
    }
    recovered.durationMs = clock.elapsed() - start;
    if (engine.pending > 0) flusher.request();
    else if (store.facts.durable) engine.releaseLog();
    else flusher.confirmLater();
    logging?.opened(report);
    // Nobody can listen before they have the database.
    setImmediate(() => emit('recovered', report));
    return db;
  } catch (error) {
    await store?.close();
    lock.release();
    throw codeOf(error)?.startsWith('E') ? logNotReady(directory, error) : error;
  }
}

function engineOptions(options: ResolvedOptions): ConstructorParameters<typeof Engine>[0] {
  const { durability, syncIntervalMs, staging, whenFull, maxBlockMs, maxWaiting, log } = options;
  return {
    durability,
    syncIntervalMs,
    logMaxBytes: log.maxBytes,
    admission: { ...staging, highWaterRatio: HIGH_WATER_RATIO, whenFull, maxBlockMs, maxWaiting },
  };
}

/**
 * Tells events to their listeners, to the channels and to the logger; and what nobody hears but somebody must, once, to the
 * process.
 */
function emitterOf(events: Events, diagnostics: EventHandlers, log: DatabaseLog | undefined): Emit<DatabaseEvents> {
  let warned = false;
  return (name, ...payload) => {
    const told = tell(() => (events.emit as (name: string, ...payload: unknown[]) => boolean)(name, ...payload));
    tell(() => diagnostics[name]?.(...payload));
    tell(() => log?.handlers[name]?.(...payload));
    // A listener that threw has heard it.
    const heard = log !== undefined || told !== false;
    if (heard || warned || (name !== 'failure' && name !== 'dead-letter')) return;
    warned = true;
    const [what] = payload as [{ error?: Error; errorMessage?: string }];
    process.emitWarning(
      name === 'failure'
        ? `something failed in the background and nobody listens: ${what.error?.message}`
        : `SQLite refused a write for good and nobody listens: ${what.errorMessage}. It is in the dead-letter queue`,
      {
        type: 'SluiceWarning',
        detail: `Listen with db.on('${name}', …), or give open() a logger. Further ${name} events will not be reported here.`,
      },
    );
  };
}

export async function makeLogFolder(fileSystem: FileSystem, directory: string): Promise<void> {
  try {
    await fileSystem.makeDirectory(directory);
    await fileSystem.syncDirectory(dirname(directory));
  } catch (cause) {
    throw new SluiceError('SLUICE_LOG_IO', `the log folder ${directory} cannot be made: ${String(cause)}`, { cause });
  }
}

/** A dead letter that is imported may do what its operation may do here, and no more. */
const checkImported: CheckTarget = (kind, { table, statement }) => {
  if (kind === Kind.stage || kind === Kind.append) checkStagedSql(statement);
  // When a row expires is written with the row.
  if (table !== null) checkName((kind <= Kind.delete ? ownerOfExpiries(table) : undefined) ?? table, 'table name');
};

/** What the disk said during recovery. */
function logNotReady(directory: string, cause: unknown): SluiceError {
  return new SluiceError(
    'SLUICE_LOG_IO',
    `the log in ${directory} cannot be read or repaired: ${messageOf(cause)}. Nothing was replayed or deleted: repair the disk and open again`,
    { cause },
  );
}

/** Frames are written with the machine's own byte order, which must be the file's. */
function assertLittleEndian(): void {
  if (new Uint8Array(Uint32Array.of(1).buffer)[0] === 1) return;
  throw new SluiceError('SLUICE_UNSUPPORTED', 'Sluice needs a little-endian machine');
}
