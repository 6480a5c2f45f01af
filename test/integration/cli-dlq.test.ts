import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Database, open } from 'sluicedb';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type Finished, serve, sluice, start } from '../support/cli.ts';
import { eventually } from '../support/eventually.ts';
import { post } from '../support/http.ts';
import { tempDir } from '../support/temp-dir.ts';

const TOKEN = 'correct-horse-battery-staple';

interface Entry {
  readonly id: number;
  readonly table: string;
  readonly key: string | null;
  readonly attempts: number;
}

/** A database file with dead rows (refused until somebody is in `allowed`), a dead pair and a dead statement. */
async function deadFile({ rows = 4 } = {}): Promise<string> {
  const file = join(tempDir(), 'dead.db');
  const db = await open(file, { flush: { mode: 'manual' } });
  db.on('dead-letter', () => {});
  await prepare(db);
  for (let n = 0; n < rows; n++) db.rows('r').append({ n });
  db.table('pairs').set('\x1b[31mred\nkey', 'not a number');
  db.stage('INSERT INTO nowhere VALUES (?, ?)', [2n ** 60n, new Uint8Array([1, 2, 3])]);
  await db.close();
  return file;
}

async function prepare(db: Database): Promise<void> {
  await db.aexecute('CREATE TABLE allowed (ok INTEGER)');
  await db.aexecute('CREATE TABLE r (n INTEGER)');
  await db.aexecute(
    `CREATE TRIGGER guard BEFORE INSERT ON r WHEN NOT EXISTS (SELECT 1 FROM allowed) BEGIN SELECT RAISE(ABORT, 'not yet'); END`,
  );
  await db.aexecute(`CREATE TABLE pairs (key TEXT PRIMARY KEY, value TEXT CHECK (typeof(value) = 'integer'))`);
}

function change(file: string, sql: string): void {
  const db = new Sqlite(file);
  db.exec(sql);
  db.close();
}

function read(file: string, sql: string): unknown {
  const db = new Sqlite(file, { readonly: true });
  try {
    return db.prepare(sql).get();
  } finally {
    db.close();
  }
}

function linesOf({ stdout }: Finished): Entry[] {
  return stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Entry);
}

/** An explanation, and no stack. */
function expectRefusal({ code, stdout, stderr }: Finished, said: string | RegExp): void {
  expect(stderr).toMatch(said);
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr).not.toMatch(/\n\s+at /);
}

async function refusedEach(
  wrong: readonly [args: string[], said: RegExp][],
  at: readonly string[],
  env: Record<string, string> = {},
): Promise<void> {
  const refused = await Promise.all(wrong.map(([args]) => sluice(['dlq', ...args, ...at], { env })));
  for (const [i, [, said]] of wrong.entries()) expectRefusal(refused[i] as Finished, said);
}

describe.each(['a file', 'a collector'])('sluice dlq on %s', (kind) => {
  /** Where the queue is, as flags; and how to do something to the database beneath. */
  async function queue(options?: { rows?: number }): Promise<{
    at: readonly string[];
    env: Record<string, string>;
    file: string;
    url: string;
  }> {
    const file = await deadFile(options);
    if (kind === 'a file') return { at: ['--db', file], env: {}, file, url: '' };
    const env = { SLUICE_TOKEN: TOKEN };
    const { url } = await serve([file, '--no-source'], env);
    return { at: ['--url', url], env, file, url };
  }

  it('lists, filters, pages, counts and shows', async () => {
    const { at, env } = await queue();
    const dlq = (...args: string[]) => sluice(['dlq', ...args, ...at], { env });
    const text = await dlq('list');
    expect([text.code, text.stderr]).toEqual([0, '']);
    const [head = '', ...rows] = text.stdout.trimEnd().split('\n');
    expect(head).toMatch(/^id {2}died +table +operation +key +code +message$/);
    expect(rows).toHaveLength(6);
    expect(rows[0]).toMatch(
      /^ 1 {2}\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ {2}r +append +- +SQLITE_CONSTRAINT_TRIGGER {2}not yet$/,
    );
    // Aligned: each column begins where its head does, whatever is in it.
    for (const row of rows) expect(row.slice(head.indexOf('code')).startsWith('SQLITE_'), row).toBe(true);
    expect(rows[4]).toContain('\\x1b[31mred\\x0akey');

    const all = linesOf(await dlq('list', '--json'));
    expect(all.map(({ table }) => table)).toEqual(['r', 'r', 'r', 'r', 'pairs', 'nowhere']);
    const page = await dlq('list', '--json', '--order', 'newest', '--limit', '2');
    expect(linesOf(page)).toEqual([all[5], all[4]]);
    expect(page.stderr).toContain('--after 5');
    expect(linesOf(await dlq('list', '--json', '--after', '4'))).toEqual(all.slice(4));
    expect(linesOf(await dlq('list', '--json', '--table', 'R', '--since', '2020-01-01T00:00:00Z'))).toHaveLength(4);

    const groups = JSON.parse((await dlq('summary', '--json', '--error-code', 'SQLITE_CONSTRAINT')).stdout) as object[];
    expect(groups).toMatchObject([
      { table: 'r', operation: 'append', entries: 4, errorMessage: 'not yet' },
      { table: 'pairs', operation: 'put', entries: 1 },
    ]);
    expect((await dlq('summary', '--operation', 'sql')).stdout).toMatch(
      /^entries .*\n +1 .*nowhere +sql +SQLITE_ERROR /,
    );

    const id = kind === 'a file' ? [...at, '6'] : ['6', ...at];
    const shown = await sluice(['dlq', 'show', ...id, '--json'], { env });
    expect(JSON.parse(shown.stdout)).toMatchObject({
      id: 6,
      operation: 'sql',
      statement: 'INSERT INTO nowhere VALUES (?, ?)',
      payload: [String(2n ** 60n), { $blob: 'AQID' }],
    });
    const human = (await sluice(['dlq', 'show', ...at, '5'], { env })).stdout;
    expect(human).toMatch(/^key +\\x1b\[31mred\\x0akey$/m);
    expect(human).toMatch(/^payload +"not a number"$/m);
    expectRefusal(await sluice(['dlq', 'show', ...at, '77'], { env }), /no dead letter 77.*SLUICE_NOT_FOUND/);
  });

  it('retries and clears, by ids, filters and all, and the exit code says whether anything failed again', async () => {
    const { at, env, file } = await queue();
    const dlq = (...args: string[]) => sluice(['dlq', ...args], { env });
    const failed = await dlq('retry', ...at, '1', '2', '99');
    expect([failed.code, failed.stdout]).toEqual([1, '0 applied, 2 failed again, 0 superseded, 1 not there\n']);
    change(file, 'INSERT INTO allowed VALUES (1)');
    const applied = await dlq('retry', ...at, '--json', '--rate', '1000', '--batch-size', '1', '1', '2');
    expect([applied.code, JSON.parse(applied.stdout)]).toEqual([
      0,
      { applied: 2, failed: 0, superseded: 0, missing: 0 },
    ]);
    const filtered = await dlq('retry', ...at, '--table', 'r');
    expect([filtered.code, filtered.stdout]).toEqual([0, '2 applied, 0 failed again, 0 superseded, 0 not there\n']);
    expect(read(file, 'SELECT count(*) AS n, count(DISTINCT n) AS d FROM r')).toEqual({ n: 4, d: 4 });
    expect((await dlq('retry', ...at, '--all')).code).toBe(1);
    expect((await dlq('clear', ...at, '5')).stdout).toBe('1 cleared\n');
    expect(JSON.parse((await dlq('clear', ...at, '--all', '--json')).stdout)).toEqual({ cleared: 1 });
    const none = await dlq('clear', ...at, '--all');
    expect([none.code, none.stdout]).toEqual([0, '0 cleared\n']);
    expect((await dlq('list', ...at)).stdout).toBe('no dead letters\n');
  });

  it('a long run says on standard error how far it is', async () => {
    const { at, env } = await queue();
    const { code, stdout, stderr } = await sluice(['dlq', 'clear', ...at, '1', '2', '--rate', '0.17'], { env });
    expect([code, stdout, stderr]).toEqual([0, '2 cleared\n', '1 of 2 entries done\n']);
  });

  it('exports what a file can import', async () => {
    const { at, env, file } = await queue();
    const exported = await sluice(['dlq', 'export', ...at], { env });
    expect([exported.code, linesOf(exported).length]).toEqual([0, 6]);
    expect(linesOf(await sluice(['dlq', 'export', ...at, '--table', 'pairs'], { env }))).toHaveLength(1);
    const other = join(tempDir(), 'other.db');
    await (await open(other)).close();
    const lines = join(tempDir(), 'dead.ndjson');
    writeFileSync(lines, exported.stdout);
    const imported = await sluice(['dlq', 'import', other, lines]);
    expect([imported.code, imported.stdout]).toEqual([0, '6 imported, 0 were there already\n']);
    const twice = await sluice(['dlq', 'import', '--db', other, '--json'], { input: exported.stdout });
    expect([twice.code, JSON.parse(twice.stdout)]).toEqual([0, { imported: 0, duplicates: 6 }]);
    expect(read(file, 'SELECT count(*) AS n FROM _sluice_dead_letters')).toEqual({ n: 6 });
  });

  it('says what its options cannot be', async () => {
    const { at, env, file } = await queue();
    const wrong: [args: string[], said: RegExp][] = [
      [['retry', '--all', '--rate', '0'], /ratePerSecond.*SLUICE_INVALID_OPTION/],
      [['clear', '--all', '--batch-size', '0'], /batchSize.*SLUICE_INVALID_OPTION/],
    ];
    // One after the other: only one process at a time opens a file.
    for (const one of wrong) await refusedEach([one], at, env);
    expect(read(file, 'SELECT count(*) AS n, sum(attempts) AS a FROM _sluice_dead_letters')).toEqual({ n: 6, a: 6 });
  });
});

describe('sluice dlq', () => {
  it('says what is wrong before it opens anything', async () => {
    const missing = ['--db', join(tempDir(), 'missing.db')];
    const wrong: [args: string[], said: RegExp][] = [
      [['clear'], /--all/],
      [['retry'], /--all/],
      [['clear', '--all', '--table', 'r'], /only one of these/],
      [['clear', '--all', '1'], /only one of these/],
      [['clear', 'x1'], /'x1' is no id/],
      [['clear', '--all', '--since', 'yesterday'], /ISO 8601/],
      [['clear', '--all', '--operation', 'drop'], /Allowed choices/],
      [['retry', '--all', '--rate', 'fast'], /number/],
      [['list', '--limit', '0'], /--limit/],
      [['list', '--tabel', 'r'], /--tabel/],
      [['list', 'more'], /one too many/],
      [['show'], /one id/],
      [['import', 'a', 'b'], /one file/],
    ];
    await refusedEach(wrong, missing);
    expectRefusal(await sluice(['dlq', 'list']), /FILE, --db FILE or --url URL/);
    expectRefusal(await sluice(['dlq', 'list', ...missing, '--url', 'http://x']), /FILE, --db FILE or --url URL/);
    const { code, stdout } = await sluice(['dlq', 'retry', '--help']);
    expect([code, stdout]).toEqual([0, expect.stringContaining("A file's log is applied first") as string]);
  });
});

describe('sluice dlq on a file', () => {
  it('takes the file as its first word, applies the log first, and makes no file that is not there', async () => {
    const file = join(tempDir(), 'log.db');
    const db = await open(file, { flush: { mode: 'manual' }, closeTimeoutMs: 0 });
    await prepare(db);
    for (let n = 0; n < 3; n++) db.rows('r').append({ n });
    await db.adurable();
    expect((await db.close()).pending).toBeGreaterThan(0);
    const { code, stdout, stderr } = await sluice(['dlq', 'list', file, '--json']);
    expect([code, stdout.split('\n').length]).toEqual([0, 4]);
    expect(stderr).toBe('3 writes of the log were refused, and are in the queue now\n');
    const cleared = await sluice(['dlq', 'clear', file, '2', '3']);
    expect([cleared.code, cleared.stdout, cleared.stderr]).toEqual([0, '2 cleared\n', '']);
    const missing = join(tempDir(), 'missing.db');
    expectRefusal(await sluice(['dlq', 'clear', missing, '--all']), /no file/);
    expect(() => readFileSync(missing)).toThrow('ENOENT');
  });

  it('that stands still: works on the queue all the same, and take lets it go', async () => {
    const file = join(tempDir(), 'stalled.db');
    const db = await open(file, { flush: { mode: 'manual' }, closeTimeoutMs: 0 });
    await db.aset('before', 1);
    await db.aflush();
    await db.aexecute('ALTER TABLE data RENAME COLUMN value TO wrong');
    await db.aset('a', 1);
    await db.close();
    const list = await sluice(['dlq', 'list', file]);
    expect([list.code, list.stdout]).toEqual([0, 'no dead letters\n']);
    expect(list.stderr).toMatch(/^1 writes of the log are not applied: .*data/);
    expect((await sluice(['dlq', 'take', file])).stdout).toBe('1 writes went to the queue\n');
    const after = await sluice(['dlq', 'list', file, '--json']);
    expect([after.stderr, linesOf(after).map(({ key }) => key)]).toEqual(['', ['a']]);
  });

  it('that another process holds: says that it is locked, and points to --url', async () => {
    const file = await deadFile();
    const { child } = await serve([file, '--no-source']);
    const locked = await sluice(['dlq', 'list', file]);
    expectRefusal(locked, /SLUICE_LOCKED/);
    expect(locked.stderr).toContain('--url');
    expect(locked.stderr).toContain(`process ${child.pid} `);
  });

  it('a run that is interrupted ends between two transactions, and the rest is there', async () => {
    const file = await deadFile({ rows: 300 });
    change(file, 'INSERT INTO allowed VALUES (1)');
    const { child, finished } = start(['dlq', 'retry', file, '--table', 'r', '--rate', '40', '--batch-size', '10']);
    const applied = () => (read(file, 'SELECT count(*) AS n FROM r') as { n: number }).n;
    await eventually(() => applied() >= 8, 'it is under way');
    child.kill('SIGINT');
    const { code, stderr } = await finished;
    expect([code, stderr]).toEqual([1, expect.stringContaining('SLUICE_ABORTED') as string]);
    const left = read(file, "SELECT count(*) AS n FROM _sluice_dead_letters WHERE table_name = 'r'") as { n: number };
    expect([left.n + applied(), left.n > 0]).toEqual([300, true]);
    expect((await sluice(['dlq', 'retry', file, '--table', 'r'])).code).toBe(0);
    expect(read(file, 'SELECT count(*) AS n, count(DISTINCT n) AS d FROM r')).toEqual({ n: 300, d: 300 });
  });

  it('whoever reads no further than the first lines gets them, and no complaint', async () => {
    const { child, finished } = start(['dlq', 'export', await deadFile({ rows: 2_000 })]);
    let taken = '';
    child.stdout?.on('data', (text: string) => {
      taken += text;
      child.stdout?.destroy();
    });
    expect(await finished).toMatchObject({ code: 0, stderr: '' });
    expect(taken.length).toBeGreaterThan(0);
    expect(taken.split('\n').length, 'lines of an export that was cut off').toBeLessThan(2_000);
  });

  it('an import says which line is none, or that it cannot be read', async () => {
    const file = await deadFile();
    const { stdout } = await sluice(['dlq', 'export', file]);
    await sluice(['dlq', 'clear', file, '--all']);
    const [first = ''] = stdout.split('\n');
    expectRefusal(await sluice(['dlq', 'import', file], { input: `${first}\n{}\n` }), /line 2 .*SLUICE_INVALID_VALUE/);
    expect(read(file, 'SELECT count(*) AS n FROM _sluice_dead_letters')).toEqual({ n: 1 });
    expectRefusal(await sluice(['dlq', 'import', file, join(tempDir(), 'none')]), /cannot be read/);
  });

  it('does not read a database as an export of itself', async () => {
    const file = join(tempDir(), 'a.db');
    await (await open(file)).close();
    expectRefusal(await sluice(['dlq', 'import', file, file]), /is the database, and no export.*SLUICE_INVALID_OPTION/);
  });

  it('leaves a database of somebody else as it is', async () => {
    const folder = tempDir();
    const file = join(folder, 'plain.db');
    const sqlite = new Sqlite(file);
    sqlite.exec('CREATE TABLE t (n)');
    sqlite.close();
    const before = readFileSync(file);
    expectRefusal(await sluice(['dlq', 'list', file]), /SLUICE_NOT_FOUND/);
    expectRefusal(await sluice(['dlq', 'list', join(folder, 'typo.db')]), /SLUICE_NOT_FOUND/);
    expect(readFileSync(file).equals(before)).toBe(true);
    expect(readdirSync(folder)).toEqual(['plain.db']);
  });
});

describe('sluice dlq on a collector', () => {
  it('lets a batch go that stands still', async () => {
    const file = join(tempDir(), 'stalled.db');
    const { url, finished, child } = await serve([file, '--no-source']);
    await post(`${url}/write/pairs`, '{"key":"a","value":1}');
    await eventually(() => {
      try {
        return read(file, 'SELECT count(*) AS n FROM pairs') !== undefined;
      } catch {
        return false;
      }
    }, 'the table is there');
    change(file, 'ALTER TABLE pairs RENAME COLUMN value TO wrong');
    await post(`${url}/write/pairs`, '{"key":"b","value":2}');
    let dead = '';
    await eventually(async () => {
      dead = (await sluice(['dlq', 'take', '--url', url])).stdout;
      return dead !== '0 writes went to the queue\n';
    }, 'it stood still');
    expect(dead).toBe('1 writes went to the queue\n');
    child.kill('SIGTERM');
    const { stderr } = await finished;
    expect(stderr).toMatch(/nothing is applied any more \(config\): .*pairs/);
    expect(stderr).toMatch(/writes are applied again, after [\d.]+ s \(config\)/);
  });

  it('that is not there, wants a token, is none, or goes away: one line each, and exit code 1', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const free = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await new Promise((resolve) => server.close(resolve));
    const commands = [['list'], ['show', '1'], ['retry', '--all'], ['clear', '--all'], ['export'], ['take']];
    const nobody = /there is nobody at .*SLUICE_NOT_FOUND/;
    await refusedEach(
      commands.map((args) => [args, nobody]),
      ['--url', free],
    );
    expectRefusal(await sluice(['dlq', 'list', '--url', 'ftp://x']), /--url must be an address/);

    const { url } = await serve([await deadFile(), '--no-source'], { SLUICE_TOKEN: TOKEN });
    expectRefusal(await sluice(['dlq', 'clear', '--all', '--url', url]), /answered 401/);
    expectRefusal(
      await sluice(['dlq', 'import', '--url', url], { env: { SLUICE_TOKEN: TOKEN } }),
      /stop it.*SLUICE_UNSUPPORTED/,
    );

    const other = createHttpServer((request, response) => {
      if (request.url === '/dlq/retry') {
        response.writeHead(200, { 'content-type': 'application/x-ndjson' });
        response.write('{"progress":{"done":5,"total":10}}\n');
        setImmediate(() => response.destroy());
      } else if (request.url === '/dlq/clear') response.end('not\nwhat was asked for\n');
      else response.writeHead(404).end('<html>');
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => other.once('listening', resolve));
    onTestFinished(() => {
      other.close();
    });
    const strange = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    expectRefusal(await sluice(['dlq', 'list', '--url', strange]), /is there a collector/);
    expectRefusal(await sluice(['dlq', 'retry', '--all', '--url', strange]), /stays done.*SLUICE_OUTCOME_UNKNOWN/);
    expectRefusal(await sluice(['dlq', 'clear', '--all', '--url', strange]), /SLUICE_OUTCOME_UNKNOWN/);
  });

  it('serve holds the queue within its limits, and tells in one line how much was dropped', async () => {
    const file = await deadFile({ rows: 0 });
    const limits = ['--dlq-max-entries', '5', '--dlq-max-bytes', '1m', '--dlq-max-age', '7d'];
    const { url, child, finished } = await serve([file, '--no-source', ...limits, '--dlq-overflow', 'evict-oldest']);
    await post(`${url}/write/r`, Array.from({ length: 500 }, (_, n) => `{"n":${n}}`).join('\n'));
    const count = () => (read(file, 'SELECT count(*) AS n FROM _sluice_dead_letters') as { n: number }).n;
    await eventually(() => count() === 5, 'the queue is cut to its limit');
    child.kill('SIGTERM');
    const { code, stderr } = await finished;
    expect(code).toBe(0);
    const dropped = [...stderr.matchAll(/(\d+) dead letters were dropped for good/g)].map(([, n]) => Number(n));
    expect(dropped.reduce((sum, n) => sum + n, 0)).toBe(497);
    expect(dropped.length).toBeLessThan(5);
    for (const flags of [
      ['--dlq-max-entries', '0'],
      ['--dlq-max-age', 'old'],
      ['--dlq-overflow', 'drop'],
    ]) {
      expectRefusal(await sluice(['serve', ':memory:', '--port', '0', ...flags]), /dlq/);
    }
  });
});
