import { Command, Option } from 'commander';
import { messageOf } from '../base/errors.ts';
import { DURABILITIES } from '../db/options.ts';
import type { Durability } from '../engine/index.ts';
import { type Collector, startCollector } from '../server/index.ts';
import { bytes, collect, duration, integer } from './arguments.ts';
import { ENCRYPTION_HELP, encryptionOfEnvironment } from './encryption.ts';
import { textLogger } from './text-logger.ts';

interface ServeFlags {
  readonly host: string;
  readonly port: number;
  readonly allowHost: readonly string[];
  readonly durability: Durability;
  readonly source: boolean;
  readonly bodyMaxBytes?: number;
  readonly stagingMaxBytes?: number;
  readonly requestTimeout?: number;
  readonly fullWait?: number;
  readonly queryTimeout?: number;
  readonly lockTimeout?: number;
  readonly dlqMaxEntries?: number;
  readonly dlqMaxBytes?: number;
  readonly dlqMaxAge?: number;
  readonly dlqOverflow?: 'block' | 'evict-oldest';
}

/** `sluice serve [FILE]` */
export function serveCommand(version: string): Command {
  return new Command('serve')
    .description('serve a database over HTTP: POST /write, GET /kv, /query, /dlq, /metrics, /healthz, /readyz')
    .argument('[FILE]', 'the database file, made if there is none', './sluice.db')
    .option(
      '--host <address>',
      'address to listen on; any other than this machine itself needs SLUICE_TOKEN',
      '127.0.0.1',
    )
    .option('--port <number>', 'port to listen on, 0 for any that is free', integer, 9_464)
    .option('--allow-host <name>', 'a further Host header that means this server (repeatable)', collect, [])
    .addOption(
      new Option('--durability <level>', 'when a write is answered')
        .choices([...DURABILITIES])
        .default('sync' satisfies Durability),
    )
    .option('--no-source', 'do not write how this machine is doing into the tables machine and cpu')
    .option('--body-max-bytes <size>', 'largest body of a write (default: 1g)', bytes)
    .option('--staging-max-bytes <size>', 'how much may be accepted and not yet applied (default: 128m)', bytes)
    .option('--request-timeout <ms>', 'how long the sender of a body may be silent (default: 30000)', integer)
    .option('--full-wait <ms>', 'how long a write waits for room before 503 (default: 5000)', integer)
    .option('--query-timeout <ms>', 'how long a query may run (default: 5000)', integer)
    .option('--lock-timeout <ms>', 'how long to wait for another process to let go of the file (default: 0)', integer)
    .option('--dlq-max-entries <number>', 'dead letters at which their queue is full (default: 1000000)', integer)
    .option('--dlq-max-bytes <size>', 'size of them at which their queue is full (default: 1g)', bytes)
    .option('--dlq-max-age <time>', 'age of the oldest at which their queue is full, such as 12h or 30d', duration)
    .addOption(
      new Option(
        '--dlq-overflow <policy>',
        'when it is full: hold all writes back, or drop the oldest dead letters for good (default: block)',
      ).choices(['block', 'evict-oldest']),
    )
    .addHelpText(
      'after',
      '\nThe environment variable SLUICE_TOKEN, if set, is the bearer token that every request but /healthz must send.' +
        ENCRYPTION_HELP +
        '\nSIGTERM and SIGINT (Ctrl+C) end it in order: requests in flight are finished and everything accepted is applied.',
    )
    .action((file: string, flags: ServeFlags) => serve(version, file, flags));
}

async function serve(version: string, file: string, flags: ServeFlags): Promise<void> {
  const { host, port, allowHost, durability, source } = flags;
  const collector = await startCollector({
    file,
    open: {
      durability,
      logger: textLogger,
      encryption: encryptionOfEnvironment(),
      lockTimeoutMs: flags.lockTimeout,
      staging: { maxBytes: flags.stagingMaxBytes },
      dlq: {
        maxEntries: flags.dlqMaxEntries,
        maxBytes: flags.dlqMaxBytes,
        maxAgeMs: flags.dlqMaxAge,
        overflow: flags.dlqOverflow,
      },
    },
    host,
    port,
    allowedHosts: allowHost,
    source,
    bodyMaxBytes: flags.bodyMaxBytes,
    requestTimeoutMs: flags.requestTimeout,
    fullWaitMs: flags.fullWait,
    queryTimeoutMs: flags.queryTimeout,
  });
  endOnSignals(collector);
  console.log(banner(version, collector, flags));
}

/** The first signal ends it in order, the second at once. */
function endOnSignals(collector: Collector): void {
  let ending = false;
  const end = (signal: 'SIGINT' | 'SIGTERM') => {
    if (ending) process.exit(signal === 'SIGINT' ? 130 : 143);
    ending = true;
    console.log(`${signal}: finishing what is under way …`);
    collector.close().then(
      ({ pending }) => {
        const rest = `${pending} writes are not applied yet: they are in the log, and are applied at the next start`;
        console.log(pending === 0 ? 'Stopped. Everything accepted is applied.' : `Stopped. ${rest}.`);
        process.exit(pending === 0 ? 0 : 1);
      },
      (error: unknown) => {
        console.error(`sluice: it did not stop in order: ${messageOf(error)}`);
        process.exit(1);
      },
    );
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => end(signal));
}

function banner(version: string, { url, db }: Collector, { durability, source }: ServeFlags): string {
  const token = process.env['SLUICE_TOKEN'] ? `-H "Authorization: Bearer $SLUICE_TOKEN" ` : '';
  const read = source ? 'SELECT * FROM cpu ORDER BY at DESC LIMIT 4' : 'SELECT * FROM readings';
  const sampled = source
    ? 'this machine, 4 times a second, into the tables machine and cpu (the last day is kept; --no-source turns it off)'
    : 'off';
  return `Sluice ${version} is listening on ${url}

  database  ${db.path} (durability: ${durability})
  source    ${sampled}
  metrics   ${url}/metrics

Write a row:
  curl -s ${token}-H 'Content-Type: application/x-ndjson' --data-binary '{"room":"kitchen","celsius":21.5}' ${url}/write/readings
Query:
  curl -s ${token}-G ${url}/query --data-urlencode 'sql=${read}'

Stop with Ctrl+C, or kill ${process.pid}: what was accepted is applied first.`;
}
