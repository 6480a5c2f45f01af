import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { describe, expect, it } from 'vitest';
import { cellValue } from '../../dist/cli/records.js';
import { serve, sluice } from '../support/cli.ts';
import { eventually } from '../support/eventually.ts';
import { parseText, sumOf } from '../support/exposition.ts';
import { ask, post } from '../support/http.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';

const NAB = join(import.meta.dirname, '..', '..', '..', 'shared', 'data', 'nab');

const FILES = [
  { name: 'cpu_utilization_asg_misconfiguration', rows: 18_050 },
  { name: 'ec2_request_latency_system_failure', rows: 4_032 },
  { name: 'machine_temperature_system_failure', rows: 22_695 },
];

/** The files of the Numenta Anomaly Benchmark; where they are not at hand, files of the same shape. */
function nabFiles(folder: string): string[] {
  const random = seededRandom(5);
  mkdirSync(folder, { recursive: true });
  return FILES.map(({ name, rows }) => {
    const copy = join(folder, `${name}.csv`);
    const original = join(NAB, `${name}.csv`);
    if (existsSync(original)) copyFileSync(original, copy);
    else {
      const line = (i: number) =>
        `${new Date(1.4e12 + i * 3e5).toISOString().slice(0, 19).replace('T', ' ')},${(random() * 100).toFixed(i % 7)}`;
      writeFileSync(copy, `timestamp,value\n${Array.from({ length: rows }, (_, i) => line(i)).join('\n')}\n`);
    }
    return copy;
  });
}

/** An address that nobody listens on. */
async function freeUrl(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}

/** What a file holds, read by other means than ours. */
function contentOf(file: string): { timestamp: string; value: number }[] {
  const [, ...lines] = readFileSync(file, 'utf8').trimEnd().split(/\r?\n/);
  return lines.map((line) => {
    const [timestamp = '', value] = line.split(',');
    return { timestamp, value: Number(value) };
  });
}

function stored(file: string, sql: string): unknown[] {
  const db = new Sqlite(file, { readonly: true });
  try {
    return db.prepare(sql).all();
  } finally {
    db.close();
  }
}

describe('sluice ingest', () => {
  it('carries real files over HTTP into SQLite, row by row and value by value', async () => {
    const folder = tempDir();
    const files = nabFiles(join(folder, 'nab'));
    const file = join(folder, 'nab.db');
    const { child, url, finished } = await serve([file]);
    const { code, stdout, stderr } = await sluice(['ingest', ...files, '--url', url]);
    expect([code, stderr]).toEqual([0, '']);
    const total = files.reduce((sum, csv) => sum + contentOf(csv).length, 0);
    expect(stdout).toMatch(
      new RegExp(
        `^${total} rows in [\\d.]+ s \\(\\d+ rows/s, [\\d.]+ MiB/s\\): ${total} confirmed by ${url}, 0 bad lines\n$`,
      ),
    );
    child.kill('SIGTERM');
    expect((await finished).code).toBe(0);
    for (const [i, { name }] of FILES.entries()) {
      const rows = stored(file, `SELECT timestamp, value FROM ${name} ORDER BY rowid`);
      const expected = contentOf(files[i] as string);
      expect(rows.length).toBe(expected.length);
      expect(rows).toEqual(expected);
      expect(stored(file, `SELECT DISTINCT typeof(timestamp) AS t FROM ${name}`)).toEqual([{ t: 'text' }]);
      expect(stored(file, `SELECT count(*) AS n FROM ${name} WHERE typeof(value) = 'text'`)).toEqual([{ n: 0 }]);
    }
  });

  it('loads the same straight into a file', async () => {
    const folder = tempDir();
    const files = nabFiles(join(folder, 'nab'));
    const file = join(folder, 'nab.db');
    const { code, stdout, stderr } = await sluice(['ingest', ...files, '--db', file]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^\d+ rows in .*: \d+ applied, 0 dead, 0 bad lines\n$/);
    for (const [i, { name }] of FILES.entries()) {
      expect(stored(file, `SELECT timestamp, value FROM ${name} ORDER BY rowid`)).toEqual(
        contentOf(files[i] as string),
      );
    }
  });

  it('sends on where a full collector stopped taking, and with the token', async () => {
    const folder = tempDir();
    const file = join(folder, 'full.db');
    const SLUICE_TOKEN = 'correct-horse-battery';
    const { child, url, finished } = await serve(
      [file, '--no-source', '--staging-max-bytes', '64k', '--full-wait', '300'],
      { SLUICE_TOKEN },
    );
    const input = join(folder, 'numbers.jsonl');
    const lines = 60_000;
    writeFileSync(
      input,
      Array.from({ length: lines }, (_, n) => `${n % 100 === 0 ? ' \n' : ''}{"n":${n},"pad":"${'x'.repeat(40)}"}`).join(
        '\n',
      ),
    );
    const refused = await sluice(['ingest', input, '--url', url]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('401');
    const loading = sluice(['ingest', input, '--url', `${url}/`], { env: { SLUICE_TOKEN } });
    const authorization = `Bearer ${SLUICE_TOKEN}`;
    const counted = async () => {
      const { text } = await ask(`${url}/metrics`, { headers: { authorization } });
      return sumOf(parseText(text), 'sluice_writes_accepted_total');
    };
    await eventually(async () => (await counted()) > 1_000, 'it is loading');
    // From now on nothing goes down, so what is sent is answered with 503 in the middle.
    const other = new Sqlite(file);
    other.exec('BEGIN IMMEDIATE');
    const probe = `${'{"n":0,"pad":""}\n'.repeat(2_000)}`;
    const { status } = await post(`${url}/write/probe`, probe, { authorization });
    expect(status, 'what the loader is answered too').toBe(503);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(await counted(), 'lines taken before nothing went down any more').toBeLessThan(lines);
    other.close();
    const { code, stdout, stderr } = await loading;
    expect(stderr).not.toContain('sluice:');
    expect(code).toBe(0);
    expect(stdout).toContain(`${lines} rows in`);
    child.kill('SIGTERM');
    await finished;
    expect(stored(file, 'SELECT count(*) AS n, count(DISTINCT n) AS d, max(n) AS m FROM numbers')).toEqual([
      { n: lines, d: lines, m: lines - 1 },
    ]);
  });

  it('reports bad lines, which cost no other line, and fails for them only if told to', async () => {
    const folder = tempDir();
    const file = join(folder, 'bad.db');
    const csv = join(folder, 'some data-1.csv');
    writeFileSync(csv, '\ufeffid,zip,note\r\n1,01234,"a ""b"", c"\r\n2,x\r\n3,99,\r\n\r\n4.50,1e400,"12"\r\n');
    const jsonl = join(folder, 'pairs.ndjson');
    writeFileSync(jsonl, `{"key":"a","value":1}\n${'nope\n'.repeat(15)}{"key":"b","value":{"c":2}}`);
    const { code, stdout, stderr } = await sluice(['ingest', csv, jsonl, '--db', file]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^5 rows in .*: 5 applied, 0 dead, 16 bad lines\n$/);
    expect(stderr).toContain(`${csv}: line 3: `);
    expect(stderr.match(/pairs\.ndjson: line /g)).toHaveLength(10);
    expect(stderr).toContain('and 5 more');
    expect(stored(file, 'SELECT * FROM some_data_1')).toEqual([
      { id: 1, zip: '01234', note: 'a "b", c' },
      { id: 3, zip: 99, note: null },
      { id: 4.5, zip: '1e400', note: '12' },
    ]);
    expect(stored(file, 'SELECT * FROM pairs')).toEqual([
      { key: 'a', value: '1' },
      { key: 'b', value: '{"c":2}' },
    ]);
    expect((await sluice(['ingest', jsonl, '--db', file, '--strict'])).code).toBe(1);
  });

  it('goes on with the other files when one cannot be read, and fails in the end', async () => {
    const folder = tempDir();
    const file = join(folder, 'some.db');
    const good = join(folder, 'good.csv');
    writeFileSync(good, 'key,value\n1,2\n');
    const twice = join(folder, 'twice.csv');
    writeFileSync(twice, 'a,A\n1,2\n');
    const { code, stdout, stderr } = await sluice([
      'ingest',
      join(folder, 'gone.csv'),
      folder,
      twice,
      good,
      '--db',
      file,
    ]);
    expect(code).toBe(1);
    expect(stdout).toContain('1 rows in');
    expect(stderr.match(/^sluice: .*cannot be read|^sluice: .*each column once/gm)).toHaveLength(3);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(stored(file, 'SELECT * FROM good')).toEqual([{ key: '1', value: '2' }]);
  });

  it('reads NDJSON from standard input', async () => {
    const file = join(tempDir(), 'in.db');
    const { code, stdout } = await sluice(['ingest', '-', '--table', 'piped', '--db', file], {
      input: '{"a":1}\n{"a":2}',
    });
    expect([code, stdout.startsWith('2 rows in')]).toEqual([0, true]);
    expect(stored(file, 'SELECT * FROM piped')).toEqual([{ a: 1 }, { a: 2 }]);
  });

  it('says what is wrong with the command', async () => {
    for (const args of [
      ['x.csv'],
      ['x.csv', '--db', 'a', '--url', 'http://127.0.0.1:1'],
      ['x.csv', '--url', 'nonsense'],
    ]) {
      const { code, stderr } = await sluice(['ingest', ...args]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^sluice: .*--(db|url)/);
    }
    const folder = tempDir();
    writeFileSync(join(folder, 'x.csv'), 'a\n1\n');
    const nobody = await sluice(['ingest', 'x.csv', '--url', await freeUrl()], { cwd: folder });
    expect(nobody.code).toBe(1);
    expect(nobody.stderr).toContain('ECONNREFUSED');
  });
});

describe('a cell of CSV', () => {
  it('is a number only if nothing is lost', () => {
    const numbers = {
      '0': 0,
      '-1.5': -1.5,
      '85.0': 85,
      '1.50': 1.5,
      '100': 100,
      '74.93588199999998': 74.93588199999998,
    };
    for (const [text, number] of Object.entries(numbers)) expect(cellValue(text)).toBe(number);
    for (const text of [
      '007',
      '+1',
      '1e400',
      '0x10',
      ' 1',
      'NaN',
      'Infinity',
      '-0',
      '9007199254740993',
      '1.',
      '.5',
      '2014-05-14 01:14:00',
    ]) {
      expect(cellValue(text)).toBe(text);
    }
    expect(cellValue('')).toBe(null);
  });
});
