import { type EncryptionOptions, type KeySource, readEncryption } from '../base/encryption/index.ts';
import { OptionReader } from '../base/options.ts';
import type { Durability } from '../engine/index.ts';
import type { RecoveryPolicy } from '../engine/log/index.ts';
import type { FlushMode } from '../flush/index.ts';
import { type Logger, loggerProblem } from './logging.ts';
import { nameProblem } from './names.ts';
import { readSqlPolicy, type SqlPolicy, type SqlPolicyOptions } from './sql/policy.ts';
import { type ResolvedTableOptions, readTableOptions, type TableOptions } from './table-options.ts';

/**
 * Options of {@link open}. Everything is optional; every problem is reported at once, with `SLUICE_INVALID_OPTION`.
 */
export interface OpenOptions<T = unknown, In = T, Coerce extends boolean = boolean>
  extends TableOptions<T, In, Coerce> {
  /**
   * Encrypts what is at rest: the values of all key-value tables that do not say otherwise, the log, and the dead letters. The keys
   * of entries, the names of tables and the columns of rows are not encrypted in the database; SQL sees bytes for values.
   *
   * A database that is encrypted opens with its key alone (`SLUICE_DECRYPT`). One that is not takes the key, and its values stay
   * as they are, and are read, until {@link Database.arotateKey} has encrypted them too; so do those that NanaSQLite has encrypted
   * with this key.
   * @defaultValue null: nothing is encrypted
   */
  readonly encryption?: EncryptionOptions | null | undefined;

  /**
   * Name of the default table, the one that the {@link Database} itself is.
   * @defaultValue 'data'
   */
  readonly table?: string | undefined;

  /**
   * What an acknowledgement means, that is, when `await db.aset(…)` resolves:
   *
   * - `'memory'` staged; no log is kept. A crash loses what was not flushed.
   * - `'os'` the operating system has it. Survives the death of the process, not a power cut.
   * - `'interval'` as `'os'`, and on the disk within {@link OpenOptions.syncIntervalMs}.
   * - `'sync'` on the disk (fdatasync). Survives a power cut.
   * - `'applied'` committed in SQLite with `synchronous=FULL`. Write-through.
   *
   * @defaultValue 'sync'; 'memory' for the path ':memory:'
   */
  readonly durability?: Durability | undefined;

  /**
   * At `durability: 'interval'`, how long what is logged may stay unsynced, in milliseconds. Integer, 1 to 60,000.
   * @defaultValue 200
   */
  readonly syncIntervalMs?: number | undefined;

  /** When staged writes are carried into SQLite. It does not change durability. */
  readonly flush?: FlushOptions | undefined;

  /** How much may be accepted and not yet applied. */
  readonly staging?: StagingOptions | undefined;

  /** The append log. */
  readonly log?: LogOptions | undefined;

  /** The dead-letter queue. */
  readonly dlq?: DlqOptions | undefined;

  /**
   * What an awaitable write does when staging is full: wait its turn, or be refused at once with `SLUICE_FULL`. The
   * synchronous forms never wait.
   * @defaultValue 'block'
   */
  readonly whenFull?: 'block' | 'reject' | undefined;

  /**
   * Longest time an awaitable write waits for room, in milliseconds; then `SLUICE_TIMEOUT`. Integer, 1 to 86,400,000.
   * @defaultValue 30000
   */
  readonly maxBlockMs?: number | undefined;

  /**
   * How many writes may wait for room; more are refused with `SLUICE_FULL`. Integer, 0 to 1,000,000.
   * @defaultValue 10000
   */
  readonly maxWaiting?: number | undefined;

  /**
   * What to do when the log is damaged where it had been synced: refuse to open and change nothing, or keep what comes
   * before the damage and set the rest aside under `.corrupt-<time>` names. A torn tail, which a crash leaves behind, is
   * no damage and is always cut off.
   * @defaultValue 'refuse'
   */
  readonly recovery?: RecoveryPolicy | undefined;

  /**
   * How many queries run at the same time, each on a reader thread that is started when needed; more wait in their order. Key reads
   * and open scans never wait for a query: they have threads of their own where these are taken. Integer, 1 to 16.
   * @defaultValue 2
   */
  readonly readers?: number | undefined;

  /**
   * Longest time a scan may be open, in milliseconds; then it ends with `SLUICE_TIMEOUT`. An open scan keeps SQLite's WAL
   * from shrinking. Integer, 1 to 86,400,000.
   * @defaultValue 60000
   */
  readonly scanMaxAgeMs?: number | undefined;

  /**
   * How long `open` waits for another process to let go of the database, in milliseconds, as in a rolling restart; then
   * `SLUICE_LOCKED`. Integer, 0 to 86,400,000.
   * @defaultValue 0
   */
  readonly lockTimeoutMs?: number | undefined;

  /**
   * How long `close` waits for staged writes to be applied, in milliseconds. What is left stays in the log and is applied
   * at the next open. Integer, 0 to 86,400,000.
   * @defaultValue 30000
   */
  readonly closeTimeoutMs?: number | undefined;

  /** What the clauses of `aquery` and its like may say. Each call can say otherwise for itself. */
  readonly sql?: SqlPolicyOptions | undefined;

  /**
   * Where to write what somebody who runs this should know: a pino or bunyan logger, or any object of the shape of
   * {@link Logger}. Keys, values and parameters are put into no line; docs/diagnostics.md says what SQLite's own messages can
   * quote.
   * @defaultValue none: nothing is logged
   */
  readonly logger?: Logger | undefined;
}

/** When staged writes are carried into SQLite. */
export interface FlushOptions {
  /**
   * - `'auto'` by age, count or bytes, whichever comes first
   * - `'immediate'` after each write (what gathers during one flush is the next)
   * - `'count'` when `maxWrites` writes are staged, or staging or the log is filling up
   * - `'time'` `intervalMs` after the first staged write
   * - `'manual'` only when asked: `aflush`, a query, close
   *
   * @defaultValue 'auto'
   */
  readonly mode?: FlushMode | undefined;
  /**
   * Longest time a write stays staged before its flush starts, in milliseconds. Integer, 1 to 3,600,000.
   * @defaultValue 100
   */
  readonly intervalMs?: number | undefined;
  /**
   * A flush starts at this many staged writes. Integer, 1 to 10,000,000.
   * @defaultValue 50000
   */
  readonly maxWrites?: number | undefined;
  /**
   * A flush starts at this many staged bytes. Integer, 1 to 1 GiB.
   * @defaultValue 16777216
   */
  readonly maxBytes?: number | undefined;
}

/** How much may be accepted and not yet applied. */
export interface StagingOptions {
  /**
   * Bytes in staging at which writes are refused or wait: keys, values and about 100 bytes a write. From half of it on,
   * `set` returns `false`. Integer, 1 KiB to 64 GiB. A single write cannot be larger.
   * @defaultValue 134217728
   */
  readonly maxBytes?: number | undefined;
  /**
   * Writes in staging at which writes are refused or wait. Integer, 1 to 100,000,000.
   * @defaultValue 1000000
   */
  readonly maxEntries?: number | undefined;
}

/** The append log. */
export interface LogOptions {
  /**
   * A log file that has reached this size is sealed, and deleted when all of it is applied, in bytes. Integer, 4 KiB to
   * 1 GiB.
   * @defaultValue 67108864
   */
  readonly segmentBytes?: number | undefined;
  /**
   * Size of the whole log at which writes are refused or wait, in bytes. Integer, at least twice `segmentBytes`, so that
   * one segment can be deleted while the next one fills.
   * @defaultValue 1073741824
   */
  readonly maxBytes?: number | undefined;
}

/** The dead-letter queue: how much it may hold, and when writes are held back instead of being moved to it. */
export interface DlqOptions {
  /**
   * Entries at which it is full. Integer, 1 to 2^53 - 1.
   * @defaultValue 1000000
   */
  readonly maxEntries?: number | undefined;
  /**
   * Bytes of stored writes at which it is full. Integer, 1 KiB to 2^53 - 1.
   * @defaultValue 1073741824
   */
  readonly maxBytes?: number | undefined;
  /**
   * Age of the oldest entry, since it was first refused, at which it counts as full, in milliseconds. Integer, 1 to 2^53 - 1.
   * @defaultValue no limit
   */
  readonly maxAgeMs?: number | undefined;
  /**
   * What happens when it is full:
   *
   * - `'block'` the flush stands still (event `stall`, reason `queue-full`) until entries were retried or cleared. It stops
   *   before the next batch, never inside one, so a batch may take the queue beyond its limits.
   * - `'evict-oldest'` the oldest entries are dropped for good, and counted (event `evicted`).
   *
   * @defaultValue 'block'
   */
  readonly overflow?: 'block' | 'evict-oldest' | undefined;
  /** The circuit breaker. */
  readonly breaker?: BreakerOptions | undefined;
}

/**
 * The circuit breaker: a large batch of which too much dies is not moved to the queue. It is rolled back, and the flush stands
 * still (event `stall`, reason `breaker`) and tries again now and then, until the cause is repaired or `dlq.take()` lets the
 * writes die.
 */
export interface BreakerOptions {
  /**
   * The share of a batch that may die. From 0 to 1; 1 turns the breaker off.
   * @defaultValue 0.5
   */
  readonly maxDeadShare?: number | undefined;
  /**
   * Batches with fewer writes are let through: one producer with a bug is no reason to hold up all others, and the limits of
   * the queue stop a slow flood. Integer of at least 1.
   * @defaultValue 20000
   */
  readonly minWrites?: number | undefined;
}

/** The options with everything filled in. What each means is said at {@link OpenOptions}. */
export interface ResolvedOptions {
  readonly table: string;
  readonly durability: Durability;
  readonly syncIntervalMs: number;
  readonly flush: {
    readonly mode: FlushMode;
    readonly intervalMs: number;
    readonly maxWrites: number;
    readonly maxBytes: number;
  };
  readonly staging: { readonly maxBytes: number; readonly maxEntries: number };
  readonly log: { readonly segmentBytes: number; readonly maxBytes: number };
  readonly dlq: {
    readonly maxEntries: number;
    readonly maxBytes: number;
    readonly maxAgeMs: number | undefined;
    readonly overflow: 'block' | 'evict-oldest';
    readonly breaker: { readonly maxDeadShare: number; readonly minWrites: number };
  };
  readonly whenFull: 'block' | 'reject';
  readonly maxBlockMs: number;
  readonly maxWaiting: number;
  readonly recovery: RecoveryPolicy;
  readonly readers: number;
  readonly scanMaxAgeMs: number;
  readonly lockTimeoutMs: number;
  readonly closeTimeoutMs: number;
  /** @internal */
  readonly sql: SqlPolicy;
  readonly logger: Logger | undefined;
  /** What tables have that are asked for without options of their own, and the default table. */
  readonly defaults: ResolvedTableOptions;
  /** @internal What encrypts, the key to write with first. None of them tells what it is. */
  readonly keys: readonly KeySource[];
}

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const DAY_MS = 86_400_000;

export const DURABILITIES: readonly ['memory', 'os', 'interval', 'sync', 'applied'] = [
  'memory',
  'os',
  'interval',
  'sync',
  'applied',
];

export function resolveOptions<T, In, C extends boolean>(
  given: OpenOptions<T, In, C>,
  isMemory: boolean,
): ResolvedOptions {
  const options = new OptionReader(given);
  const flush = options.nested('flush');
  const staging = options.nested('staging');
  const log = options.nested('log');
  const dlq = options.nested('dlq');
  const breaker = dlq.nested('breaker');
  const resolved: ResolvedOptions = {
    table: options.text('table', 'data'),
    durability: options.oneOf('durability', DURABILITIES, isMemory ? 'memory' : 'sync'),
    syncIntervalMs: options.integer('syncIntervalMs', { min: 1, max: 60_000, fallback: 200 }),
    flush: {
      mode: flush.oneOf('mode', ['auto', 'immediate', 'count', 'time', 'manual'], 'auto'),
      intervalMs: flush.integer('intervalMs', { min: 1, max: 3_600_000, fallback: 100 }),
      maxWrites: flush.integer('maxWrites', { min: 1, max: 10_000_000, fallback: 50_000 }),
      maxBytes: flush.integer('maxBytes', { min: 1, max: GIB, fallback: 16 * MIB }),
    },
    staging: {
      maxBytes: staging.integer('maxBytes', { min: KIB, max: 64 * GIB, fallback: 128 * MIB }),
      maxEntries: staging.integer('maxEntries', { min: 1, max: 100_000_000, fallback: 1_000_000 }),
    },
    log: {
      segmentBytes: log.integer('segmentBytes', { min: 4 * KIB, max: GIB, fallback: 64 * MIB }),
      maxBytes: log.integer('maxBytes', { min: 8 * KIB, max: Number.MAX_SAFE_INTEGER, fallback: GIB }),
    },
    dlq: {
      maxEntries: dlq.integer('maxEntries', { min: 1, max: Number.MAX_SAFE_INTEGER, fallback: 1_000_000 }),
      maxBytes: dlq.integer('maxBytes', { min: KIB, max: Number.MAX_SAFE_INTEGER, fallback: GIB }),
      maxAgeMs: dlq.integer('maxAgeMs', { min: 1, max: Number.MAX_SAFE_INTEGER, fallback: undefined }),
      overflow: dlq.oneOf('overflow', ['block', 'evict-oldest'], 'block'),
      breaker: {
        maxDeadShare: breaker.ratio('maxDeadShare', 0.5),
        minWrites: breaker.integer('minWrites', { min: 1, max: Number.MAX_SAFE_INTEGER, fallback: 20_000 }),
      },
    },
    whenFull: options.oneOf('whenFull', ['block', 'reject'], 'block'),
    maxBlockMs: options.integer('maxBlockMs', { min: 1, max: DAY_MS, fallback: 30_000 }),
    maxWaiting: options.integer('maxWaiting', { min: 0, max: 1_000_000, fallback: 10_000 }),
    recovery: options.oneOf('recovery', ['refuse', 'keep-prefix'], 'refuse'),
    readers: options.integer('readers', { min: 1, max: 16, fallback: 2 }),
    scanMaxAgeMs: options.integer('scanMaxAgeMs', { min: 1, max: DAY_MS, fallback: 60_000 }),
    lockTimeoutMs: options.integer('lockTimeoutMs', { min: 0, max: DAY_MS, fallback: 0 }),
    closeTimeoutMs: options.integer('closeTimeoutMs', { min: 0, max: DAY_MS, fallback: 30_000 }),
    sql: readSqlPolicy(options.nested('sql')),
    logger: options.any('logger') as Logger | undefined,
    defaults: readTableOptions(options),
    keys: readEncryption(options) ?? [],
  };
  const loggerFault = loggerProblem(resolved.logger);
  if (loggerFault !== undefined) options.refuse('logger', loggerFault);
  const nameFault = nameProblem(resolved.table);
  if (nameFault !== undefined) options.refuse('table', nameFault);
  if (resolved.log.maxBytes < 2 * resolved.log.segmentBytes) {
    log.refuse(
      'maxBytes',
      `must be at least twice log.segmentBytes (${resolved.log.segmentBytes}), not ${resolved.log.maxBytes}`,
    );
  }
  options.finish('open');
  return Object.freeze(resolved);
}
