import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type CopyProgress, type Database, inspect, open, verify } from 'sluicedb';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { Child } from '../support/child.ts';
import { NO_PRELOAD } from '../support/compiled.ts';
import { codeFrom, refusal } from '../support/eventually.ts';
import { FaultFileSystem } from '../support/fault-file-system.ts';
import { FaultShim } from '../support/fault-shim.ts';
import { machine } from '../support/machine.ts';
import { openTemp } from '../support/open-temp.ts';
import { Recorder } from '../support/recorder.ts';
import { tempDir } from '../support/temp-dir.ts';

/** A file of its own, for a copy. */
const place = (name = 'backup.db') => join(tempDir(), name);

/** What a database has, opened and closed again. */
async function reading<T>(file: string, read: (db: Database) => T | Promise<T>, options = {}): Promise<T> {
  const db = await open(file, options);
  db.on('dead-letter', () => {});
  try {
    return await read(db);
  } finally {
    await db.close();
  }
}

const contentOf = (file: string) => reading(file, (db) => db.toDict());

describe('a backup of a database that works', () => {
  test('is one moment of it: everything accepted before the call, nothing in half, whatever is written meanwhile', async () => {
    const db = await openTemp('data.db', { flush: { mode: 'immediate' } });
    const ballast = db.table('ballast');
    for (let i = 0; i < 3_000; i++) ballast.set(`b${i}`, 'x'.repeat(10_000));
    await db.aflush();
    let written = 0;
    const write = () => db.setMany({ [`left/${written}`]: written, [`right/${written}`]: written, last: written++ });
    write();
    const timer = setInterval(() => write(), 1);
    onTestFinished(() => clearInterval(timer));
    for (let round = 0; round < 3; round++) {
      const before = written;
      const progress: CopyProgress[] = [];
      const { path, bytes, appliedSeq, durationMs } = await db.abackup(place(), {
        onProgress: (copied) => progress.push(copied),
      });
      // It was under load, or this says nothing: batches were committed between the snapshot and the end.
      expect(db.stats().appliedSeq).toBeGreaterThan(appliedSeq + 3);
      expect(readdirSync(dirname(path))).toEqual(['backup.db']);
      expect([bytes, durationMs > 0]).toEqual([statSync(path).size, true]);
      const { last, ...pairs } = await contentOf(path);
      expect(last).toBeGreaterThanOrEqual(before - 1);
      expect(last).toBeLessThan(written);
      const keys = Array.from({ length: Number(last) + 1 }, (_, i) => [`left/${i}`, `right/${i}`]).flat();
      expect(new Set(Object.keys(pairs))).toEqual(new Set(keys));
      expect(await verify(path)).toMatchObject({ ok: true });
      // SQLite's own backup would begin anew with each commit.
      const copied = progress.filter(({ phase }) => phase === 'copy').map((each) => each.bytes);
      expect(copied.length).toBeGreaterThan(10);
      expect(copied).toEqual(copied.toSorted((a, b) => a - b));
      expect(progress.at(-1)).toEqual({ phase: 'check', bytes: bytes, totalBytes: bytes });
    }
  });

  test('has what is staged, in whatever mode the flush is, and says up to which write', async () => {
    const db = await openTemp('data.db', { flush: { mode: 'manual' } });
    db.setMany({ a: 1, b: 2 });
    db.rows('r', { columns: { n: 'integer' } }).append({ n: 1 });
    expect(db.stats().pending).toBe(3);
    const { path, appliedSeq } = await db.abackup(place());
    expect(appliedSeq).toBe(3);
    expect((await inspect(path)).state.watermark).toBe(3);
    await reading(path, async (copy) => {
      expect(copy.toDict()).toEqual({ a: 1, b: 2 });
      expect(await copy.afetchAll('SELECT n FROM r')).toEqual([{ n: 1 }]);
    });
  });

  test('keeps rowids that no column has', async () => {
    const db = await openTemp();
    await db.aexecute('CREATE TABLE t (name TEXT)');
    for (const name of ['a', 'b', 'c']) await db.aexecute('INSERT INTO t VALUES (?)', [name]);
    await db.aexecute(`DELETE FROM t WHERE name = 'a'`);
    const { path } = await db.abackup(place());
    const rows = await reading(path, (copy) => copy.afetchAll('SELECT rowid AS id, name FROM t'));
    expect(rows).toEqual([
      { id: 2, name: 'b' },
      { id: 3, name: 'c' },
    ]);
  });

  test('of a temporary database, and told to the logger', async () => {
    const logger = new Recorder();
    const db = await open(':memory:', { logger });
    db.set('a', 1);
    const { path } = await db.abackup(place());
    await db.close();
    expect(await contentOf(path)).toEqual({ a: 1 });
    expect(logger.said).toContain(`info: backed up to ${path}`);
  });

  test('may be read by those who may read the database', async () => {
    const db = await openTemp();
    db.set('a', 1);
    await db.aflush();
    chmodSync(db.path, 0o640);
    const { path } = await db.abackup(place());
    expect(statSync(path).mode & 0o777).toBe(0o640);
  });

  test('several at once, to places of their own', async () => {
    const db = await openTemp();
    db.set('a', 1);
    const copies = await Promise.all([db.abackup(place()), db.abackup(place())]);
    for (const { path } of copies) expect(await contentOf(path)).toEqual({ a: 1 });
  });
});

describe('dead letters', () => {
  async function withDeadLetter(): Promise<Database> {
    const db = await openTemp();
    await db.aexecute('CREATE TABLE r (n INTEGER CHECK (n > 0))');
    db.rows('r').append({ n: -1 });
    db.set('a', 1);
    await db.aflush();
    expect(db.dlq.size).toBe(1);
    return db;
  }

  test('are in the copy, and known again where they were', async () => {
    const db = await withDeadLetter();
    const { path } = await db.abackup(place());
    expect(await verify(path)).toMatchObject({ ok: true, checked: { deadLetters: 1 } });
    const lines = await reading(path, async (copy) => {
      expect((await copy.agetDlq()).map(({ payload }) => payload)).toEqual([[-1]]);
      const exported = [];
      for await (const line of copy.dlq.export()) exported.push(line);
      return exported;
    });
    expect(await db.dlq.import(lines)).toEqual({ imported: 0, duplicates: 1 });
  });

  test('can be a reason for none', async () => {
    const db = await withDeadLetter();
    const path = place();
    const error = await refusal(() => db.abackup(path, { deadLetters: 'refuse' }));
    expect([error.code, error.message]).toEqual(['SLUICE_CONFLICT', expect.stringContaining('1 dead letters')]);
    expect(readdirSync(dirname(path))).toEqual([]);
    await db.dlq.clear('all');
    await db.abackup(path, { deadLetters: 'refuse' });
    expect(existsSync(path)).toBe(true);
  });
});

describe('the copy is a database of its own', () => {
  test('opened beside the original, both go on', async () => {
    const db = await openTemp();
    db.set('a', 'both');
    const { path } = await db.abackup(join(dirname(db.path), 'copy.db'));
    const copy = await open(path);
    await Promise.all([db.aset('b', 'original'), copy.aset('b', 'copy')]);
    expect((await inspect(db.path)).state.databaseId).not.toBe((await inspect(path)).state.databaseId);
    await copy.close();
    expect(await contentOf(path)).toEqual({ a: 'both', b: 'copy' });
    expect(db.toDict()).toEqual({ a: 'both', b: 'original' });
  });

  test('put in the place of the original by hand, the log that lies there is not for it', async () => {
    const folder = tempDir();
    const child = new Child(
      `const db = await open(process.argv[2], { flush: { mode: 'manual' } });
       await db.aset('a', 1);
       await db.abackup(process.argv[3]);
       await db.aset('b', 'only in the log');
       console.log('ready');
       setInterval(() => {}, 1000);`,
      [join(folder, 'a.db'), join(folder, 'copy.db')],
    );
    await child.says('ready');
    child.process.kill('SIGKILL');
    await child.end();
    cpSync(folder, `${folder}-untouched`, { recursive: true });
    // The same file with the id of the original would go on with the log of it.
    expect(await contentOf(join(`${folder}-untouched`, 'a.db'))).toEqual({ a: 1, b: 'only in the log' });
    for (const suffix of ['-wal', '-shm']) renameSync(join(folder, `a.db${suffix}`), join(folder, `old${suffix}`));
    renameSync(join(folder, 'copy.db'), join(folder, 'a.db'));
    const { recovery } = await inspect(join(folder, 'a.db'));
    expect([recovery?.writes, recovery?.setAside.length]).toEqual([0, 1]);
    expect(await contentOf(join(folder, 'a.db'))).toEqual({ a: 1 });
  });

  test('needs the key of the original', async () => {
    const encryption = { key: randomBytes(32) };
    const db = await openTemp('data.db', { encryption });
    db.set('a', 'secret');
    const { path } = await db.abackup(place());
    expect(readFileSync(path).includes('secret')).toBe(false);
    expect(await codeFrom(() => open(path))).toBe('SLUICE_DECRYPT');
    expect(await reading(path, (copy) => copy.get('a'), { encryption })).toBe('secret');
  });
});

describe('where it may go', () => {
  test('nowhere into the database itself, by whatever name', async () => {
    const db = await openTemp();
    await db.aset('a', 1);
    const folder = dirname(db.path);
    linkSync(db.path, join(folder, 'hard'));
    symlinkSync(db.path, join(folder, 'soft'));
    linkSync(`${db.path}-wal`, join(folder, 'hard-wal'));
    const before = readdirSync(folder);
    const own = [
      db.path,
      join(folder, '.', 'data.db'),
      ...['-wal', '-shm', '-journal', '-log', '-log/backup.db', '-log/lock.db'].map((end) => db.path + end),
      ...['hard', 'soft', 'hard-wal'].map((name) => join(folder, name)),
    ];
    for (const path of own) {
      expect([path, await codeFrom(() => db.abackup(path, { overwrite: true }))]).toEqual([
        path,
        'SLUICE_INVALID_OPTION',
      ]);
    }
    for (const path of ['', ':memory:', folder, join(folder, 'nowhere', 'b.db'), 7 as never]) {
      expect([path, await codeFrom(() => db.abackup(path, { overwrite: true }))]).toEqual([
        path,
        'SLUICE_INVALID_OPTION',
      ]);
    }
    expect(readdirSync(folder)).toEqual(before);
    expect(db.get('a')).toBe(1);
  });

  test('over a file that is there only if told so, and then whole; who may read it stays', async () => {
    const db = await openTemp();
    db.set('a', 1);
    const path = place();
    writeFileSync(path, 'precious', { mode: 0o600 });
    expect(await codeFrom(() => db.abackup(path))).toBe('SLUICE_CONFLICT');
    expect(readFileSync(path, 'utf8')).toBe('precious');
    symlinkSync(path, join(dirname(path), 'link.db'));
    const result = await db.abackup(join(dirname(path), 'link.db'), { overwrite: true });
    expect(result.path).toBe(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(await contentOf(path)).toEqual({ a: 1 });
    expect(readdirSync(dirname(path)).sort()).toEqual(['backup.db', 'backup.db-log', 'link.db']);
  });

  test('not where SQLite would carry something into it, nor over a database that is open', async () => {
    const db = await openTemp();
    db.set('a', 1);
    const path = place();
    writeFileSync(`${path}-wal`, 'of a process that was killed');
    expect(await codeFrom(() => db.abackup(path))).toBe('SLUICE_CONFLICT');
    expect(readdirSync(dirname(path))).toEqual(['backup.db-wal']);
    const other = await openTemp('other.db');
    // Nothing is in its WAL, so that only its lock tells.
    expect(await codeFrom(() => db.abackup(other.path, { overwrite: true }))).toBe('SLUICE_LOCKED');
    other.set('mine', 1);
    expect(other.get('mine')).toBe(1);
  });

  test('options are checked', async () => {
    const db = await openTemp();
    const bad = [{ overwite: true }, { deadLetters: 'drop' }, { onProgress: 1 }, { timeoutMs: 0 }, { overwrite: 1 }];
    for (const options of bad) {
      expect(await codeFrom(() => db.abackup(place(), options as never))).toBe('SLUICE_INVALID_OPTION');
    }
  });
});

describe('where it fails, nothing is left', () => {
  test.skipIf(NO_PRELOAD !== undefined)(
    'a disk that is full, and one that does not sync: what was there stays',
    async () => {
      const shim = new FaultShim();
      const copies = join(tempDir(), 'copies');
      mkdirSync(copies);
      writeFileSync(join(copies, 'there.db'), 'precious');
      const child = new Child(
        `const db = await open(process.argv[2] + '/../a.db');
       for (let i = 0; i < 500; i++) db.set('k' + i, 'x'.repeat(1000));
       await db.aflush();
       const attempt = async (name) => {
         const options = { overwrite: true };
         await db.abackup(process.argv[2] + '/' + name, options).then(() => console.log('done'), (e) => console.log(e.code, e.sqliteCode));
       };
       console.log('ready');
       process.stdin.on('data', async (name) => { await attempt(String(name).trim()); console.log('tried'); });`,
        [copies],
        { env: shim.env },
      );
      await child.says('ready');
      const attempt = async (name: string) => {
        child.output = '';
        child.process.stdin?.write(`${name}\n`);
        await child.says('tried');
        return child.output.split('\n')[0];
      };
      shim.arm({ operation: 'write', file: '.partial', error: 'ENOSPC', skip: 20 });
      expect(await attempt('there.db')).toBe('SLUICE_STORE SQLITE_FULL');
      expect(shim.hits()[0]).toBeGreaterThan(0);
      expect(await attempt('new.db')).toBe('SLUICE_STORE SQLITE_FULL');
      shim.arm({ operation: 'sync', file: '.partial', error: 'EIO' });
      expect(await attempt('there.db')).toMatch(/^SLUICE_STORE/);
      expect(shim.hits()[0]).toBeGreaterThan(0);
      expect(readdirSync(copies)).toEqual(['there.db']);
      expect(readFileSync(join(copies, 'there.db'), 'utf8')).toBe('precious');
      shim.arm();
      expect(await attempt('there.db')).toBe('done');
      expect(readdirSync(copies)).toEqual(['there.db']);
      expect((await contentOf(join(copies, 'there.db')))['k499']).toBe('x'.repeat(1000));
    },
  );

  test('a rename that is refused; and one whose folder cannot be synced is told of', async () => {
    const fileSystem = new FaultFileSystem();
    const db = await openOn(machine({ fileSystem }), join(tempDir(), 'a.db'), {});
    onTestFinished(async () => void (await db.close()));
    db.set('a', 1);
    const path = place();
    fileSystem.fail('rename', 'EACCES', { times: 1 });
    expect(await codeFrom(() => db.abackup(path))).toBe('SLUICE_STORE');
    expect(fileSystem.hit('rename')).toBe(1);
    expect(readdirSync(dirname(path))).toEqual([]);
    await db.aflush();
    fileSystem.fail('syncDirectory', 'EIO', { times: 1, file: /^sluice-test-/ });
    const { code, message } = await refusal(() => db.abackup(path));
    expect([code, message]).toEqual(['SLUICE_STORE', expect.stringContaining('its name is safe')]);
    expect(await contentOf(path)).toEqual({ a: 1 });
  });

  test('aborted, late, or ended by close: at once, and with nothing left', async () => {
    const db = await openTemp();
    for (let i = 0; i < 1_000; i++) db.set(`k${i}`, 'x'.repeat(10_000));
    const path = place();
    const stop = new AbortController();
    const reason = new Error('enough');
    const aborted = await refusal(() =>
      db.abackup(path, { signal: stop.signal, onProgress: () => stop.abort(reason) }),
    );
    expect([aborted.code, aborted.cause]).toEqual(['SLUICE_ABORTED', reason]);
    expect(await codeFrom(() => db.abackup(path, { signal: AbortSignal.abort() }))).toBe('SLUICE_ABORTED');
    expect(await codeFrom(() => db.abackup(path, { timeoutMs: 1 }))).toBe('SLUICE_TIMEOUT');
    let closed: Promise<unknown> | undefined;
    const ended = codeFrom(() =>
      db.abackup(path, {
        onProgress: () => {
          closed ??= db.close();
        },
      }),
    );
    expect(await ended).toBe('SLUICE_CLOSED');
    await closed;
    expect(readdirSync(dirname(path))).toEqual([]);
    expect(readdirSync(dirname(db.path)).sort()).toEqual(['data.db', 'data.db-log']);
    expect(await codeFrom(() => db.abackup(path))).toBe('SLUICE_CLOSED');
  });

  test('a database with a damaged page is not backed up', async () => {
    const file = join(tempDir(), 'a.db');
    await reading(file, (db) => {
      for (let i = 0; i < 500; i++) db.set(`k${i}`, 'x'.repeat(1_000));
    });
    const bytes = readFileSync(file);
    bytes.fill(0xff, 20 * 4096, 21 * 4096);
    writeFileSync(file, bytes);
    const path = place();
    await reading(file, async (db) => {
      const error = await refusal(() => db.abackup(path));
      expect([error.code, error.sqliteCode]).toEqual(['SLUICE_STORE', 'SQLITE_CORRUPT']);
    });
    expect(readdirSync(dirname(path))).toEqual([]);
  });
});

test('the copy has no side files, and any program of SQLite reads it where nothing can be written', async () => {
  const db = await openTemp();
  db.set('a', 1);
  const { path } = await db.abackup(place());
  const sqlite = new Sqlite(path, { readonly: true });
  expect(sqlite.pragma('journal_mode', { simple: true })).toBe('delete');
  expect(sqlite.prepare('SELECT value FROM data').pluck().get()).toBe('1');
  sqlite.close();
  expect(readdirSync(dirname(path))).toEqual(['backup.db']);
});
