import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { type Collector, type CollectorOptions, startCollector } from 'sluicedb/server';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openOn } from '../../dist/db/open.js';
import { eventually } from '../support/eventually.ts';
import { parseText, sumOf } from '../support/exposition.ts';
import { FaultFileSystem } from '../support/fault-file-system.ts';
import { ask, post, sqlUrl } from '../support/http.ts';
import { machine } from '../support/machine.ts';
import { tempDir } from '../support/temp-dir.ts';

const ENDLESS = 'WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r';

async function started(options: CollectorOptions = {}): Promise<Collector> {
  const collector = await startCollector({
    ...(options.db === undefined ? { file: join(tempDir(), 'q.db') } : {}),
    port: 0,
    ...options,
  });
  onTestFinished(async () => {
    await collector.close();
  });
  return collector;
}

describe('GET /query', () => {
  it('sees everything that was accepted before', async () => {
    const { url } = await started({ open: { flush: { mode: 'manual' } } });
    await post(`${url}/write/t`, '{"a":1}\n{"a":2}');
    const { status, json } = await ask(sqlUrl(url, 'SELECT sum(a) AS total FROM t'));
    expect(status).toBe(200);
    expect(json).toEqual({ columns: ['total'], rowCount: 1, truncated: false, rows: [{ total: 3 }] });
    await post(`${url}/write/t`, '{"a":3}');
    expect((await ask(sqlUrl(url, 'SELECT sum(a) AS total FROM t', '&stale=1'))).json.rows).toEqual([{ total: 3 }]);
  });

  it('what JSON has no form for is told apart', async () => {
    const { url } = await started();
    const { json } = await ask(
      sqlUrl(url, "SELECT 9007199254740993 AS big, 5 AS small, x'00ff' AS bytes, NULL AS none"),
    );
    expect(json.rows).toEqual([{ big: '9007199254740993', small: 5, bytes: { $blob: 'AP8=' }, none: null }]);
  });

  it('has the columns of the table as it is', async () => {
    const { url, db } = await started();
    await post(`${url}/write/t`, '{"a":1}');
    const columns = async (sql: string) => (await ask(sqlUrl(url, sql))).json.columns;
    expect(await columns('SELECT * FROM t')).toEqual(['a']);
    await db.aexecute('ALTER TABLE t ADD COLUMN b DEFAULT 7');
    expect((await ask(sqlUrl(url, 'SELECT * FROM t'))).json).toMatchObject({
      columns: ['a', 'b'],
      rows: [{ a: 1, b: 7 }],
    });
    await db.aexecute('ALTER TABLE t ADD COLUMN c');
    expect(await columns('SELECT * FROM t WHERE a = 2')).toEqual(['a', 'b', 'c']);
  });

  it('has a limit of rows and of bytes', async () => {
    const { url } = await started();
    const numbers = 'WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT 20000) SELECT i FROM r';
    const count = async (more: string) => {
      const { json } = await ask(sqlUrl(url, numbers, more));
      return [json.rows.length, json.truncated];
    };
    expect(await count('')).toEqual([1_000, true]);
    expect(await count('&limit=10000')).toEqual([10_000, true]);
    expect((await ask(sqlUrl(url, `${numbers} LIMIT 10`, '&limit=10'))).json).toMatchObject({
      rowCount: 10,
      truncated: false,
    });
    for (const limit of ['0', '10001', '-1', '1.5', 'x', '']) {
      expect((await ask(sqlUrl(url, 'SELECT 1', `&limit=${limit}`))).status).toBe(400);
    }
    const heavy = await ask(sqlUrl(url, `SELECT i, hex(zeroblob(1500000)) AS wide FROM (${numbers})`));
    expect(heavy.json).toMatchObject({ rowCount: 5, truncated: true, truncatedBy: 'bytes' });
  });

  it('only reads, one statement, and not what belongs to Sluice', async () => {
    const { url, db } = await started();
    await post(`${url}/write/t`, '{"a":1}');
    for (const sql of [
      'DELETE FROM t',
      'INSERT INTO t VALUES (1) RETURNING a',
      'WITH x AS (SELECT 1) DELETE FROM t RETURNING a',
      'PRAGMA journal_mode = DELETE',
      '/* SELECT */ PRAGMA user_version',
      "ATTACH '/tmp/other.db' AS other",
      'SELECT 1; DROP TABLE t',
      'BEGIN',
      'VACUUM',
      'SELECT * FROM _sluice_dead_letters',
      'SELECT * FROM "_sluice_state"',
      "SELECT load_extension('x')",
      'SELECT hex(zeroblob(900000000))',
      'SELEC 1',
      '',
    ]) {
      const { status, json } = await ask(sqlUrl(url, sql));
      expect([sql, status, json.error.code]).toEqual([sql, 400, 'SLUICE_INVALID_SQL']);
    }
    for (const search of [
      '',
      '?q=1',
      '?sql=SELECT+1&sql=SELECT+2',
      '?sql=SELECT+1&limits=5',
      '?sql=SELECT+1&stale=x',
    ]) {
      expect((await ask(`${url}/query${search}`)).status).toBe(400);
    }
    for (const sql of [
      'VALUES (1)',
      'WITH x AS (SELECT 1) SELECT * FROM x',
      'EXPLAIN QUERY PLAN SELECT * FROM t',
      '-- x\nSELECT 1;',
    ]) {
      expect([sql, (await ask(sqlUrl(url, sql))).status]).toEqual([sql, 200]);
    }
    expect(await db.afetchAll('SELECT * FROM t')).toEqual([{ a: 1 }]);
  });

  it('one that does not end is killed, and the next one works', async () => {
    const { url } = await started({ queryTimeoutMs: 400 });
    for (let round = 0; round < 2; round++) {
      const [endless, next] = await Promise.all([
        ask(sqlUrl(url, ENDLESS)),
        ask(sqlUrl(url, 'SELECT 1 AS one')),
        // Meanwhile everything else goes on.
        post(`${url}/write/t`, '{"a":1}'),
      ]);
      expect([endless.status, endless.json.error.code]).toEqual([504, 'SLUICE_TIMEOUT']);
      expect([next.status, next.json.rows]).toEqual([200, [{ one: 1 }]]);
    }
  });

  it('more than can wait are turned away', async () => {
    const { url } = await started({ queryTimeoutMs: 1_000 });
    const endless = ask(sqlUrl(url, ENDLESS));
    const others = await Promise.all(Array.from({ length: 50 }, () => ask(sqlUrl(url, 'SELECT 1', '&stale=1'))));
    const statuses = others.map(({ status }) => status);
    expect(new Set(statuses)).toEqual(new Set([200, 503]));
    expect(others.find(({ status }) => status === 503)?.headers['retry-after']).toBe('1');
    expect((await endless).status).toBe(504);
  });
});

describe('how it is', () => {
  it('/metrics has the numbers of the database and of the process, and they rise', async () => {
    const { url } = await started({ source: true, sourceIntervalMs: 20 });
    const applied = async () => {
      const { text } = await ask(`${url}/metrics`);
      expect(text).toContain('process_cpu_seconds_total');
      return sumOf(parseText(text), 'sluice_writes_applied_total');
    };
    const first = await applied();
    await eventually(async () => (await applied()) > first + 20, 'more is applied');
    const { json } = await ask(sqlUrl(url, 'SELECT * FROM machine JOIN cpu USING (at) ORDER BY at DESC LIMIT 1'));
    expect(json.rows[0].at).toBeGreaterThan(Date.now() - 60_000);
    expect(json.rows[0].memory_used_bytes).toBeGreaterThan(0);
    expect(json.rows[0].process_rss_bytes).toBeGreaterThan(0);
    expect(json.rows[0].busy).toBeGreaterThanOrEqual(0);
    expect(json.rows[0].busy).toBeLessThanOrEqual(1);
    expect((await ask(`${url}/metrics`, { method: 'HEAD' })).text).toBe('');
  });

  it('the source does not write into a table that is there for something else', async () => {
    const file = join(tempDir(), 'taken.db');
    const first = await startCollector({ file, port: 0 });
    await post(`${first.url}/write/cpu`, '{"key":"mine","value":1}');
    await first.close();
    await expect(startCollector({ file, port: 0, source: true })).rejects.toMatchObject({ code: 'SLUICE_CONFLICT' });
    const again = await started({ file });
    expect((await ask(`${again.url}/kv/cpu/mine`)).json).toBe(1);
  });

  it('is alive but not ready while what was recovered is not applied', async () => {
    const file = join(tempDir(), 'slow.db');
    const lines = 200_000;
    const open = { durability: 'os', closeTimeoutMs: 0, flush: { mode: 'manual' } } as const;
    const before = await startCollector({ file, port: 0, open });
    const body = Array.from({ length: lines }, (_, n) => `{"n":${n}}`).join('\n');
    expect((await post(`${before.url}/write/t`, body)).json.accepted).toBe(lines);
    expect((await before.close()).pending).toBeGreaterThan(lines - 1);

    const { url } = await started({ file });
    const early = await ask(`${url}/readyz`);
    expect([early.status, early.json]).toEqual([503, { ready: false, state: 'ok', reason: 'recovering' }]);
    expect((await ask(`${url}/healthz`)).status).toBe(200);
    await eventually(async () => (await ask(`${url}/readyz`)).status === 200, 'it is ready');
    const count = await ask(sqlUrl(url, 'SELECT count(DISTINCT n) AS n FROM t', '&stale=1'));
    expect(count.json.rows).toEqual([{ n: lines }]);
  });

  it('is not ready when it has been retrying for long, and ready again when that is over', async () => {
    const file = join(tempDir(), 'stalled.db');
    const { url, db } = await started({ file });
    db.on('failure', () => undefined);
    const other = new Sqlite(file);
    other.exec('BEGIN IMMEDIATE');
    await post(`${url}/write/t`, '{"a":1}');
    await eventually(() => db.state === 'degraded', 'it retries');
    const busy = await ask(`${url}/readyz`);
    expect([busy.status, busy.json], 'one busy moment is no stall').toEqual([200, { ready: true, state: 'degraded' }]);
    await eventually(async () => (await ask(`${url}/readyz`)).json.reason === 'stalled', 'it is stalled');
    const stalled = await ask(`${url}/readyz`);
    expect([stalled.status, stalled.json]).toEqual([
      503,
      { ready: false, state: 'degraded', reason: 'stalled', stall: 'transient' },
    ]);
    other.close();
    await eventually(async () => (await ask(`${url}/readyz`)).status === 200, 'it is ready again');
    expect((await ask(`${url}/readyz`)).json).toEqual({ ready: true, state: 'ok' });
  });

  it('a database that has failed is alive and not ready, refuses writes, and is read', async () => {
    const disk = new FaultFileSystem();
    const db = await openOn(machine({ fileSystem: disk }), join(tempDir(), 'failed.db'), {});
    db.on('failure', () => undefined);
    const { url } = await started({ db });
    onTestFinished(async () => {
      await db.close();
    });
    await post(`${url}/write/pairs`, '{"key":"before","value":1}');
    await db.aflush();
    disk.fail('datasync', 'EIO', { file: /\.log$/ });
    const write = await post(`${url}/write/pairs`, '{"key":"during","value":2}');
    expect(write.status).toBe(503);
    // Nobody knows, and the answer does not pretend to.
    expect(write.json).toMatchObject({ accepted: 0, unconfirmed: 1, rejected: 0 });
    expect(['SLUICE_FAILED', 'SLUICE_LOG_IO']).toContain(write.json.error.code);
    await eventually(() => db.state === 'failed', 'it has failed');
    const refused = await post(`${url}/write/pairs`, '{"key":"after","value":3}');
    expect([refused.status, refused.json.error.code]).toEqual([503, 'SLUICE_FAILED']);
    const ready = await ask(`${url}/readyz`);
    expect([ready.status, ready.json]).toEqual([503, { ready: false, state: 'failed', reason: 'failed' }]);
    expect((await ask(`${url}/healthz`)).status).toBe(200);
    expect((await ask(`${url}/kv/pairs/before`)).json).toBe(1);
    expect((await ask(sqlUrl(url, 'SELECT key FROM pairs'))).status).toBe(503);
    expect((await ask(sqlUrl(url, 'SELECT key FROM pairs', '&stale=1'))).json.rows).toEqual([{ key: 'before' }]);
  });
});
