import { unlinkSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import type { Registry } from 'prom-client';
import { type Database, type OpenOptions, open } from 'sluicedb';
import { createMetrics } from 'sluicedb/metrics';
import { onTestFinished } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { Child, lockFromOutside } from './child.ts';
import { FaultShim } from './fault-shim.ts';
import { flip, killed, segment } from './left-behind.ts';
import { machine } from './machine.ts';
import { MortalWriter } from './mortal-writer.ts';
import { tempDir } from './temp-dir.ts';

/** What can be wrong with a database, once it is told to begin. */
export interface Trouble {
  readonly begin: () => unknown;
}

const SMALL_SEGMENTS = { segmentBytes: 4_096, maxBytes: 64 * 1024 } as const;

/** Does something again and again, until the test has ended. */
function keepDoing(work: () => unknown, pauseMs = 20): void {
  let ended = false;
  const run = async () => {
    while (!ended) {
      await work();
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  };
  const running = run();
  onTestFinished(async () => {
    ended = true;
    await running;
  });
}

/** Databases of this process, each with its own kind of trouble, and their metrics in one registry. */
export class Troubles {
  readonly names: string[] = [];
  readonly #registry: Registry;

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  async all(): Promise<Trouble[]> {
    return [
      await this.#locked(),
      await this.#poisoned(),
      await this.#mended(),
      await this.#imported(),
      await this.#mortal(),
      await this.#pinned(),
      await this.#failed(),
      await this.#damaged(),
      await this.#foreign(),
    ];
  }

  /** Another process has the write lock, and does not let it go; staging and log fill up. */
  async #locked(): Promise<Trouble> {
    const { db, file } = await this.#open('locked', { log: SMALL_SEGMENTS, maxBlockMs: 50 });
    return {
      begin: async () => {
        await lockFromOutside(file);
        keepDoing(async () => {
          try {
            db.set('k', 'x'.repeat(1_000));
          } catch {
            // Full: that is what waits here, too.
            await db.aset('k', 1).catch(() => undefined);
          }
        }, 5);
      },
    };
  }

  /** Rows that SQLite refuses, and a queue that is too small for them. */
  async #poisoned(): Promise<Trouble> {
    const { db } = await this.#open('poisoned', { dlq: { maxEntries: 10, overflow: 'evict-oldest' } });
    await db.aexecute('CREATE TABLE readings (celsius REAL CHECK (celsius > -273.15))');
    return { begin: () => keepDoing(() => db.rows('readings').append({ celsius: -300 })) };
  }

  /** Dead letters that are retried, superseded and cleared, so that all parts of the law of the queue move. */
  async #mended(): Promise<Trouble> {
    const { db } = await this.#open('mended');
    await db.aexecute(`CREATE TABLE guarded (key TEXT PRIMARY KEY, value TEXT CHECK (value <> '"bad"'))`);
    let round = 0;
    const mend = async () => {
      round++;
      for (const key of ['a', 'b']) db.table('guarded').set(`${key}${round}`, 'bad');
      db.stage('INSERT INTO late VALUES (1)');
      await db.aflush();
      db.table('guarded').set(`a${round}`, 'good');
      await db.aexecute('CREATE TABLE late (n)');
      await db.dlq.retry('all');
      await db.aexecute('DROP TABLE late');
      await db.dlq.clear({ table: 'guarded' });
    };
    return { begin: () => keepDoing(mend) };
  }

  /** A dead letter from another database, where it was refused 20 minutes ago. */
  async #imported(): Promise<Trouble> {
    const { db } = await this.#open('imported');
    db.stage('INSERT INTO missing VALUES (1)');
    await db.aflush();
    let line = '';
    for await (const part of db.dlq.export()) line += part;
    await db.dlq.clear('all');
    const old = JSON.stringify({ ...JSON.parse(line), firstFailedAt: Date.now() - 1_200_000 });
    return { begin: () => db.dlq.import(old) };
  }

  /** A writer thread that dies. */
  async #mortal(): Promise<Trouble> {
    const writer = new MortalWriter();
    const { db } = await this.#open('mortal', {}, (file, options) =>
      openOn(machine({ spawn: writer.spawn }), file, options),
    );
    return {
      begin: async () => {
        for (let death = 0; death < 4; death++) {
          await writer.kill();
          // Between two deaths something is applied, or it would count as a crash loop.
          db.set('k', death);
          await db.aflush();
        }
      },
    };
  }

  /** A reader that never closes its transaction. */
  async #pinned(): Promise<Trouble> {
    const { db, file } = await this.#open('pinned');
    await db.aset('k', 0);
    await db.aflush();
    return {
      begin: () => {
        const reader = new Sqlite(file, { readonly: true });
        reader.exec('BEGIN');
        reader.prepare('SELECT count(*) FROM data').get();
        onTestFinished(() => {
          reader.close();
        });
        let i = 0;
        keepDoing(() => db.set(`k${i++ % 100}`, 'x'.repeat(1_000)));
      },
    };
  }

  /** Somebody deletes the file. */
  async #failed(): Promise<Trouble> {
    const { file } = await this.#open('failed');
    return { begin: () => unlinkSync(file) };
  }

  /** What had been synced cannot be read any more. */
  async #damaged(): Promise<Trouble> {
    const file = await killed();
    flip(segment(file, 1), 20_000);
    await this.#add('damaged', await open(file, { recovery: 'keep-prefix' }));
    return { begin: () => undefined };
  }

  /** The log of a database that is not there any more. */
  async #foreign(): Promise<Trouble> {
    const file = await killed();
    for (const name of [file, `${file}-wal`, `${file}-shm`]) unlinkSync(name);
    await this.#add('foreign', await open(file));
    return { begin: () => undefined };
  }

  async #open(
    name: string,
    options: OpenOptions = {},
    opening: (file: string, options: OpenOptions) => Promise<Database> = open,
  ): Promise<{ db: Database; file: string }> {
    const file = join(tempDir(), `${name}.db`);
    const db = await opening(file, { closeTimeoutMs: 1_000, ...options });
    return { db: this.#add(name, db), file };
  }

  #add(name: string, db: Database): Database {
    for (const event of ['failure', 'dead-letter'] as const) db.on(event, () => undefined);
    const metrics = createMetrics(db, { registry: this.#registry, db: name, processMetrics: true });
    this.names.push(name);
    onTestFinished(async () => {
      metrics.close();
      await db.close();
    });
    return db;
  }
}

/** Databases of a process whose disk is slow, full, or about to be. */
export async function diskTroubles(): Promise<Trouble & { readonly url: string; readonly names: readonly string[] }> {
  const shim = new FaultShim();
  const child = new Child(DISK, [tempDir(), new URL('../../dist/metrics/index.js', import.meta.url).href], {
    env: shim.env,
  });
  await child.says('ready');
  const url = /url (\S+)/.exec(child.output)?.[1] ?? '';
  return {
    url,
    names: ['slow', 'busy', 'full'],
    begin: () =>
      shim.arm(
        { operation: 'sync', file: 'slow.db-log/0000000001.log', error: { slowMs: 2_000 } },
        { operation: 'sync', file: 'busy.db-wal', error: { slowMs: 200 } },
        { operation: 'write', file: 'full.db-log/0000000001.log', error: 'ENOSPC', times: 2 },
        { operation: 'write', file: 'full.db-wal', error: 'ENOSPC' },
        { operation: 'statfs', error: { percent: 1 } },
      ),
  };
}

const DISK = `
  const [folder, metrics] = process.argv.slice(2);
  const { createMetrics, serveMetrics } = await import(metrics);
  const slow = await open(folder + '/slow.db');
  const busy = await open(folder + '/busy.db', { durability: 'os', flush: { mode: 'immediate' } });
  const full = await open(folder + '/full.db');
  const { registry } = createMetrics(slow, { db: 'slow' });
  createMetrics(busy, { registry, db: 'busy' });
  const server = await serveMetrics(full, { registry, db: 'full', port: 0, processMetrics: true });
  let i = 0;
  for (const db of [slow, busy, full]) {
    db.on('failure', () => undefined);
    setInterval(() => db.set('k' + (i++ % 100), i), 10);
  }
  console.log('url ' + server.url);
  console.log('ready');`;
