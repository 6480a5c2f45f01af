import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type Database, open } from 'sluicedb';
import { expect, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { Child } from '../support/child.ts';
import { codeFrom, eventually } from '../support/eventually.ts';
import { machine, Threads } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const MANUAL = { flush: { mode: 'manual' } } as const;
const OPTIONS = { flush: { mode: 'manual' }, log: { segmentBytes: 4_096 } } as const;

/** What somebody does to the files of an open database, and how they are put back. */
interface Harm {
  readonly do: (file: string, aside: string) => void;
  readonly undo: (file: string, aside: string) => void;
}

const HARMS: Readonly<Record<string, Harm>> = {
  'the file is unlinked, and another name of it linked back': {
    do: (file, aside) => {
      linkSync(file, aside);
      unlinkSync(file);
    },
    undo: (file, aside) => renameSync(aside, file),
  },
  'the file is renamed away': {
    do: (file, aside) => renameSync(file, aside),
    undo: (file, aside) => renameSync(aside, file),
  },
  'the file and its WAL are renamed away': {
    do: (file, aside) => {
      renameSync(file, aside);
      renameSync(`${file}-wal`, `${aside}-wal`);
    },
    undo: (file, aside) => {
      renameSync(aside, file);
      renameSync(`${aside}-wal`, `${file}-wal`);
    },
  },
  'the file is replaced by a copy': {
    do: (file, aside) => {
      renameSync(file, aside);
      copyFileSync(aside, file);
    },
    undo: (file, aside) => renameSync(aside, file),
  },
  'the file is replaced by a copy, which stays': {
    do: (file, aside) => {
      copyFileSync(file, aside);
      renameSync(aside, file);
    },
    undo: () => {},
  },
  'the WAL is removed': { do: (file) => rmSync(`${file}-wal`), undo: () => {} },
  'the WAL is renamed away': {
    do: (file, aside) => renameSync(`${file}-wal`, `${aside}-wal`),
    undo: (file, aside) => renameSync(`${aside}-wal`, `${file}-wal`),
  },
  'the WAL is replaced by a copy': {
    do: (file, aside) => {
      copyFileSync(`${file}-wal`, `${aside}-wal`);
      renameSync(`${aside}-wal`, `${file}-wal`);
    },
    undo: () => {},
  },
};

interface Opened {
  readonly db: Database;
  readonly file: string;
  readonly aside: string;
  readonly failures: Error[];
}

async function opened(): Promise<Opened> {
  const folder = tempDir();
  mkdirSync(join(folder, 'aside'));
  const file = join(folder, 'a.db');
  const db = await open(file, OPTIONS);
  const failures: Error[] = [];
  db.on('failure', ({ error }) => failures.push(error));
  return { db, file, aside: join(folder, 'aside', 'a.db'), failures };
}

/** Five values that the log no longer has: they are in SQLite's WAL, and not yet in the file. */
async function fill(db: Database, file: string): Promise<void> {
  for (let i = 0; i < 5; i++) await db.aset(`k${i}`, i);
  for (let i = 0; i < 2; i++) await db.table('filling').aset(`${i}`, 'x'.repeat(5_000));
  await db.aflush();
  await eventually(() => !existsSync(`${file}-log/0000000001.log`), 'the first segment is deleted');
  expect(statSync(`${file}-wal`).size).toBeGreaterThan(0);
}

/** The database again, and everything that was acknowledged in it. */
async function expectAll(file: string, last: number, recovered?: number): Promise<void> {
  const db = await open(file);
  // What was refused was not committed into files that were lost.
  if (recovered !== undefined) expect(db.stats().recovered).toBe(recovered);
  expect([...db.values()].sort((a, b) => Number(a) - Number(b))).toEqual(Array.from({ length: last + 1 }, (_, i) => i));
  expect(await db.afetchOne('SELECT count(*) AS n FROM data')).toEqual({
    n: last + 1,
  });
  await db.aset('fresh', last + 1);
  await db.aflush();
  expect(db.get('fresh')).toBe(last + 1);
  await db.close();
}

test.each(Object.entries(HARMS))('[fault 52] %s: the next batch is refused, and nothing is lost', async (_, harm) => {
  const { db, file, aside, failures } = await opened();
  await fill(db, file);
  harm.do(file, aside);
  for (let i = 5; i < 10; i++) await db.aset(`k${i}`, i);
  expect(await codeFrom(() => db.aflush())).toBe('SLUICE_FAILED');
  expect(db.state).toBe('failed');
  expect(db.stats()).toMatchObject({ applied: 7, pending: 5, deadLettered: 0 });
  expect(failures.at(-1)?.message).toMatch(/moved, deleted or replaced .* put the file back/);
  expect(await codeFrom(() => db.aexecute('CREATE TABLE late (n)'))).toBe('SLUICE_FAILED');
  expect([db.get('k0'), db.get('k9')]).toEqual([0, 9]);
  expect(await db.close()).toEqual({ pending: 5 });
  harm.undo(file, aside);
  await expectAll(file, 9, 5);
});

test('[fault 52] each of these is noticed within 5 s without a write', async () => {
  await Promise.all(
    Object.entries(HARMS).map(async ([name, harm]) => {
      const { db, file, aside, failures } = await opened();
      await fill(db, file);
      await db.aset('k5', 5);
      harm.do(file, aside);
      // A little more than the 5 s promised: this machine is busy.
      await eventually(() => db.state === 'failed', name, 7_000);
      expect(failures).toHaveLength(1);
      expect(await codeFrom(() => db.aset('late', 1))).toBe('SLUICE_FAILED');
      expect(db.get('k5')).toBe(5);
      expect(await db.close()).toEqual({ pending: 1 });
      harm.undo(file, aside);
      await expectAll(file, 5);
    }),
  );
});

test('[fault 52] each of these, noticed by a process that is then killed, loses nothing either', async () => {
  await Promise.all(
    Object.entries(HARMS).map(async ([name, harm]) => {
      const folder = tempDir();
      const [file, aside] = [join(folder, 'a.db'), join(folder, 'aside')];
      const child = new Child(
        `const db = await open(process.argv[2], ${JSON.stringify(OPTIONS)});
         db.on('failure', () => console.log('noticed'));
         for (let i = 0; i < 5; i++) await db.aset('k' + i, i);
         for (let i = 0; i < 2; i++) await db.table('filling').aset('' + i, 'x'.repeat(5000));
         await db.aflush();
         await db.aset('k5', 5);
         console.log('ready');
         setInterval(() => {}, 1000);`,
        [file],
      );
      await child.says('ready');
      harm.do(file, aside);
      await child.says('noticed').catch((error) => {
        throw new Error(name, { cause: error });
      });
      child.process.kill('SIGKILL');
      await child.end();
      harm.undo(file, aside);
      await expectAll(file, 5);
    }),
  );
});

test('[fault 52] a batch whose COMMIT went into a file that is gone is not acknowledged, and its segment is kept', async () => {
  const { db, file, aside } = await opened();
  await db.aexecute('CREATE TABLE slow (n INTEGER)');
  await db.aset('k0', 0);
  // Long enough for the file to go between the look before the batch and its COMMIT.
  db.stage(
    'INSERT INTO slow WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000000) SELECT max(i) FROM c',
  );
  const flushed = codeFrom(() => db.aflush());
  await eventually(() => db.stats().flushRunningMs > 0, 'the batch is on its way');
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(db.stats().flushRunningMs).toBeGreaterThan(40);
  renameSync(file, aside);
  expect(await flushed).toBe('SLUICE_FAILED');
  expect(db.stats()).toMatchObject({ applied: 0, pending: 2, flushRunningMs: 0 });
  expect(db.stats().logSegments).toBeGreaterThan(0);
  await db.close();
  renameSync(aside, file);
  const again = await open(file);
  expect(again.get('k0')).toBe(0);
  // It was committed after all, and is not applied a second time.
  expect(await again.afetchAll('SELECT n FROM slow')).toEqual([{ n: 2_000_000 }]);
  await again.close();
});

test('[fault 52] a writer thread that starts again takes the WAL it finds, but no other database', async () => {
  const folder = tempDir();
  const threads = new Threads();
  const file = join(folder, 'a.db');
  const db = await openOn(machine({ spawn: threads.spawn }), file, MANUAL);
  db.on('failure', () => {});
  await db.aset('k0', 0);
  await db.aflush();
  // The only connections to it: SQLite deletes the WAL with them, and makes another one.
  await threads.writer.terminate();
  await db.aset('k1', 1);
  await db.aflush();
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  expect(db.state).toBe('ok');
  await db.aset('k2', 2);
  await threads.writer.terminate();
  renameSync(file, join(folder, 'aside.db'));
  expect(await codeFrom(() => db.aflush())).toBe('SLUICE_FAILED');
  expect(existsSync(file)).toBe(false);
  expect(await db.close()).toEqual({ pending: 1 });
  renameSync(join(folder, 'aside.db'), file);
  await expectAll(file, 2);
});

test('[fault 52] a reader that starts when the file is another one does not answer from that one', async () => {
  const folder = tempDir();
  const [file, other] = [join(folder, 'a.db'), join(folder, 'other.db')];
  const stranger = await open(other, MANUAL);
  await stranger.aset('k', 'of another database');
  await stranger.close();
  const db = await open(file, MANUAL);
  db.on('failure', () => {});
  await db.aset('k', 'ours');
  await db.aflush();
  renameSync(other, file);
  // No reader thread has been needed yet.
  expect(await codeFrom(() => db.aget('k'))).toBe('SLUICE_STORE');
  expect(db.get('k')).toBe('ours');
  await db.close();
});

const SEGMENT_HARMS: Readonly<Record<string, (segment: string, aside: string) => void>> = {
  unlinked: (segment) => unlinkSync(segment),
  'renamed away': (segment, aside) => renameSync(segment, aside),
  'replaced by a copy': (segment, aside) => {
    copyFileSync(segment, aside);
    renameSync(aside, segment);
  },
  'replaced by something else': (segment) => {
    unlinkSync(segment);
    writeFileSync(segment, 'something else');
  },
};

test.each(Object.entries(SEGMENT_HARMS))(
  '[fault 21] segments of the log are %s under the open database: what it has accepted is applied all the same',
  async (_, harm) => {
    const { db, file, aside } = await opened();
    await db.aset('k0', 0);
    await db.table('filling').aset('0', 'x'.repeat(5_000));
    await db.aset('k1', 1);
    // One that is full, and the one that is open.
    for (const name of ['0000000001.log', '0000000002.log']) harm(join(`${file}-log`, name), `${aside}-${name}`);
    for (let i = 2; i < 6; i++) await db.aset(`k${i}`, i);
    expect(await db.aflush({ timeoutMs: 10_000 })).toMatchObject({ applied: 7 });
    await db.aset('k6', 6);
    expect(db.state).toBe('ok');
    expect(await db.close()).toEqual({ pending: 0 });
    await expectAll(file, 6);
  },
);

test('[fault 21] a segment that was removed under a process that is then killed is missed by whoever opens next', async () => {
  const file = join(tempDir(), 'a.db');
  const child = new Child(
    `const db = await open(process.argv[2], ${JSON.stringify(OPTIONS)});
     await db.aset('k0', 0);
     await db.table('filling').aset('0', 'x'.repeat(5000));
     await db.aset('k1', 1);
     console.log('ready');
     setInterval(() => {}, 1000);`,
    [file],
  );
  await child.says('ready');
  unlinkSync(join(`${file}-log`, '0000000001.log'));
  child.process.kill('SIGKILL');
  await child.end();
  expect(await codeFrom(() => open(file))).toBe('SLUICE_LOG_CORRUPT');
});
