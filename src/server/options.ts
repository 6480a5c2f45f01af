import { SluiceError } from '../base/errors.ts';
import { OptionReader, show } from '../base/options.ts';
import { Database } from '../db/database.ts';
import { type OpenOptions, resolveOptions } from '../db/options.ts';
import { isLoopback, TOKEN_LENGTH_MIN } from './guard.ts';

/** Options of {@link startCollector}. Every problem is reported at once, with `SLUICE_INVALID_OPTION`. */
export interface CollectorOptions {
  /** The database file. @defaultValue './sluice.db' */
  readonly file?: string | undefined;
  /** How to open the file. */
  readonly open?: OpenOptions | undefined;
  /** An open database to serve, instead of a file. It stays open when the collector is closed. */
  readonly db?: Database | undefined;
  /**
   * Address to listen on. Any other than a loopback address needs a {@link CollectorOptions.token}.
   * @defaultValue '127.0.0.1'
   */
  readonly host?: string | undefined;
  /** Integer, 0 to 65535; 0 takes any free port. @defaultValue 9464 */
  readonly port?: number | undefined;
  /**
   * What every request but `/healthz` must send: `Authorization: Bearer …`. At least 16 visible ASCII characters.
   * @defaultValue the environment variable SLUICE_TOKEN
   */
  readonly token?: string | undefined;
  /**
   * Further values of the Host header that mean this server, as `name` or `name:port`. On an address that is not loopback,
   * Host is checked only if this is given.
   * @defaultValue none
   */
  readonly allowedHosts?: readonly string[] | undefined;
  /** Largest body of a write, in bytes. Integer, 1 to 1 TiB. @defaultValue 1073741824 */
  readonly bodyMaxBytes?: number | undefined;
  /**
   * How long the sender of a body may be silent, and how long the answer waits for the log, in milliseconds. A body that
   * keeps coming may take as long as it likes. Integer, 1 to 3,600,000.
   * @defaultValue 30000
   */
  readonly requestTimeoutMs?: number | undefined;
  /**
   * How long a write waits for room in staging before 503, and a read for what it depends on, in milliseconds. Integer, 1 to
   * 3,600,000.
   * @defaultValue 5000
   */
  readonly fullWaitMs?: number | undefined;
  /** Time after which a query is killed, in milliseconds. Integer, 1 to 3,600,000. @defaultValue 5000 */
  readonly queryTimeoutMs?: number | undefined;
  /** Whether to write how this machine is doing into the tables `machine` and `cpu`. @defaultValue false */
  readonly source?: boolean | undefined;
  /** Time between two samples of the source, in milliseconds. Integer, 10 to 3,600,000. @defaultValue 250 */
  readonly sourceIntervalMs?: number | undefined;
  /** How long `close` waits for requests in flight, in milliseconds. Integer, 0 to 3,600,000. @defaultValue 10000 */
  readonly closeTimeoutMs?: number | undefined;
}

/** The options with everything filled in. */
export interface ResolvedCollectorOptions {
  readonly file: string;
  readonly open: OpenOptions;
  readonly db: Database | undefined;
  readonly host: string;
  readonly port: number;
  readonly token: string | undefined;
  readonly allowedHosts: readonly string[];
  readonly bodyMaxBytes: number;
  readonly requestTimeoutMs: number;
  readonly fullWaitMs: number;
  readonly queryTimeoutMs: number;
  readonly source: boolean;
  readonly sourceIntervalMs: number;
  readonly closeTimeoutMs: number;
}

const HOUR_MS = 3_600_000;
const GIB = 1024 ** 3;

export function resolveCollectorOptions(given: CollectorOptions): ResolvedCollectorOptions {
  const options = new OptionReader(given);
  const file = options.text('file', './sluice.db');
  const resolved: ResolvedCollectorOptions = {
    file,
    open: readOpen(options, file),
    db: readDatabase(options, given),
    host: options.text('host', '127.0.0.1'),
    port: options.integer('port', { min: 0, max: 65_535, fallback: 9_464 }),
    token: readToken(options),
    allowedHosts: readHosts(options),
    bodyMaxBytes: options.integer('bodyMaxBytes', { min: 1, max: 1024 * GIB, fallback: GIB }),
    requestTimeoutMs: options.integer('requestTimeoutMs', { min: 1, max: HOUR_MS, fallback: 30_000 }),
    fullWaitMs: options.integer('fullWaitMs', { min: 1, max: HOUR_MS, fallback: 5_000 }),
    queryTimeoutMs: options.integer('queryTimeoutMs', { min: 1, max: HOUR_MS, fallback: 5_000 }),
    source: options.boolean('source', false),
    sourceIntervalMs: options.integer('sourceIntervalMs', { min: 10, max: HOUR_MS, fallback: 250 }),
    closeTimeoutMs: options.integer('closeTimeoutMs', { min: 0, max: HOUR_MS, fallback: 10_000 }),
  };
  const { host, token } = resolved;
  if (file === '') options.refuse('file', 'must not be empty');
  // An empty address means all of them to Node.
  if (host === '') options.refuse('host', 'must not be empty');
  else if (!isLoopback(host) && token === undefined) options.refuse('host', needsToken(host));
  options.finish('startCollector');
  return Object.freeze(resolved);
}

/** Why a collector without a token does not listen on an address. */
export function needsToken(host: string): string {
  return `${show(host)} can be reached by others, which needs a token: set SLUICE_TOKEN to at least ${TOKEN_LENGTH_MIN} characters, or stay on 127.0.0.1`;
}

function readOpen(options: OptionReader, file: string): OpenOptions {
  const open = options.any('open') as OpenOptions | undefined;
  if (open === undefined) return {};
  try {
    resolveOptions(open, file === ':memory:');
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    for (const problem of error.problems) options.refuse('open:', problem);
  }
  return open;
}

function readDatabase(options: OptionReader, given: CollectorOptions): Database | undefined {
  const db = options.any('db');
  if (db === undefined) return undefined;
  if (!(db instanceof Database)) options.refuse('db', `must be an open database, not ${show(db)}`);
  if (given.file !== undefined || given.open !== undefined) {
    options.refuse('db', 'is open already: file and open do not go with it');
  }
  return db as Database;
}

function readToken(options: OptionReader): string | undefined {
  // An empty variable is how a shell unsets one.
  const token = options.any('token') ?? (process.env['SLUICE_TOKEN'] || undefined);
  if (token === undefined) return undefined;
  if (typeof token === 'string' && /^[\x21-\x7e]+$/.test(token) && token.length >= TOKEN_LENGTH_MIN) return token;
  // The value stays out of the message.
  options.refuse(
    'token',
    `must be at least ${TOKEN_LENGTH_MIN} visible ASCII characters without spaces (SLUICE_TOKEN)`,
  );
  return undefined;
}

function readHosts(options: OptionReader): readonly string[] {
  const hosts = options.any('allowedHosts') ?? [];
  const isList = Array.isArray(hosts) && hosts.every((host) => typeof host === 'string' && /^[^\s/]+$/.test(host));
  if (isList) return hosts as string[];
  options.refuse('allowedHosts', "must be a list of host names, as 'name' or 'name:port'");
  return [];
}
