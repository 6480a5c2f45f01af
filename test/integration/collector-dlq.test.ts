import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import type { Database, DeadLetterSummary, OpenOptions } from 'sluicedb';
import { type Collector, type CollectorOptions, startCollector } from 'sluicedb/server';
import { describe, expect, it, onTestFinished } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { type Answer, ask } from '../support/http.ts';
import { tempDir } from '../support/temp-dir.ts';

const JSON_BODY = { 'content-type': 'application/json' };
const NDJSON = 'application/x-ndjson';
const TOKEN = 'correct-horse-battery-staple';

async function started(options: CollectorOptions = {}, open: OpenOptions = {}): Promise<Collector> {
  const file = join(tempDir(), 'dlq.db');
  const collector = await startCollector({ file, port: 0, open: { flush: { intervalMs: 5 }, ...open }, ...options });
  onTestFinished(async () => {
    await collector.close();
  });
  collector.db.on('dead-letter', () => {});
  collector.db.on('failure', () => {});
  return collector;
}

/** Kills `count` rows that the table `r` refuses. */
async function killRows(db: Database, count: number): Promise<void> {
  await db.aexecute('CREATE TABLE IF NOT EXISTS allowed (ok INTEGER)');
  await db.aexecute('CREATE TABLE IF NOT EXISTS r (n INTEGER)');
  await db.aexecute(
    `CREATE TRIGGER IF NOT EXISTS guard BEFORE INSERT ON r WHEN NOT EXISTS (SELECT 1 FROM allowed)
     BEGIN SELECT RAISE(ABORT, 'not yet'); END`,
  );
  const rows = db.rows('r');
  for (let n = 0; n < count; n++) rows.append({ n });
  await db.aflush();
}

const repair = (db: Database) => db.aexecute('INSERT INTO allowed VALUES (1)');

/** One entry of each of several kinds. */
async function killSome(db: Database): Promise<void> {
  await killRows(db, 3);
  await db.aexecute(`CREATE TABLE pairs (key TEXT PRIMARY KEY, value TEXT CHECK (typeof(value) = 'integer'))`);
  db.table('pairs').set('secret key', 'a secret value');
  db.table('pairs').set('blob', new Uint8Array([1, 2, 3]));
  db.stage('INSERT INTO nowhere VALUES (?, ?, ?)', [2n ** 60n, 7, new Uint8Array([255])]);
  await db.aflush();
  expect(db.dlq.size).toBe(6);
}

function postJson(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return ask(url, { method: 'POST', body: text, headers: { ...JSON_BODY, ...headers } });
}

function linesOf({ text }: Answer): Record<string, unknown>[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe('looking at dead letters over HTTP', () => {
  it('lists summaries, without statement and payload, in pages to the end, both ways', async () => {
    const { url, db } = await started();
    await killSome(db);
    const all = await ask(`${url}/dlq`);
    expect([all.status, all.json.size, all.json.entries.length]).toEqual([200, 6, 6]);
    expect(all.json.entries[3]).toMatchObject({
      table: 'pairs',
      operation: 'put',
      key: 'secret key',
      attempts: 1,
      errorClass: 'permanent',
      errorCode: 'SQLITE_CONSTRAINT_CHECK',
    });
    expect(all.text).not.toMatch(/a secret value|INSERT INTO|payload|statement/);
    const ids = (all.json.entries as DeadLetterSummary[]).map(({ id }) => id);
    for (const order of ['oldest', 'newest']) {
      const seen: number[] = [];
      let pages = 0;
      for (let after: number | undefined; ; pages++) {
        const next = after === undefined ? '' : `&after=${after}`;
        const { json } = await ask(`${url}/dlq?order=${order}&limit=4${next}`);
        const page = (json.entries as DeadLetterSummary[]).map(({ id }) => id);
        expect(json.size).toBe(6);
        if (page.length === 0) break;
        seen.push(...page);
        after = page.at(-1);
      }
      expect([order, pages, seen]).toEqual([order, 2, order === 'oldest' ? ids : [...ids].reverse()]);
    }
    const head = await ask(`${url}/dlq`, { method: 'HEAD' });
    expect(head).toMatchObject({ status: 200, text: '' });
  });

  it('filters, the same way for list, summary and export', async () => {
    const { url, db } = await started();
    await killSome(db);
    const now = Date.now();
    const iso = (ms: number) => encodeURIComponent(new Date(ms).toISOString());
    const filters: [query: string, entries: number][] = [
      ['', 6],
      ['table=R', 3],
      ['table=pairs&operation=put', 2],
      ['table=pairs&operation=append', 0],
      ['operation=sql', 1],
      ['errorCode=SQLITE_CONSTRAINT', 5],
      ['errorCode=SQLITE_CONSTRAINT_TRIGGER', 3],
      ['errorCode=SQLITE_CONS', 0],
      [`since=${iso(now - 60_000)}`, 6],
      [`since=${now - 60_000}&until=${now + 60_000}`, 6],
      [`since=${iso(now + 60_000)}`, 0],
      [`until=${iso(now - 60_000)}`, 0],
      ['until=2020-01-01', 0],
      ['since=2020-01-01T00:00%2B02:00', 6],
    ];
    for (const [query, entries] of filters) {
      const list = await ask(`${url}/dlq?${query}`);
      const summary = await ask(`${url}/dlq/summary?${query}`);
      const lines = linesOf(await ask(`${url}/dlq/export?${query}`));
      const summed = (summary.json.groups as { entries: number }[]).reduce((sum, group) => sum + group.entries, 0);
      expect([query, list.json.entries.length, summed, lines.length]).toEqual([query, entries, entries, entries]);
      expect([list.json.size, summary.json.size]).toEqual([6, 6]);
    }
    const { json, text } = await ask(`${url}/dlq/summary`);
    expect(json.groups[0]).toMatchObject({ table: 'r', operation: 'append', entries: 3, errorMessage: 'not yet' });
    expect(text).not.toMatch(/a secret value|INSERT INTO/);
  });

  it('shows a whole entry, large integers and BLOBs as /query does, and says typed that there is none', async () => {
    const { url, db } = await started();
    await killSome(db);
    const [sql] = await db.dlq.list({ operation: 'sql' });
    const [blob] = await db.dlq.list({ operation: 'put', order: 'newest' });
    expect((await ask(`${url}/dlq/${sql?.id}`)).json).toMatchObject({
      statement: 'INSERT INTO nowhere VALUES (?, ?, ?)',
      payload: [String(2n ** 60n), 7, { $blob: '/w==' }],
    });
    expect((await ask(`${url}/dlq/${blob?.id}`)).json.payload).toEqual({ $blob: 'AQID' });
    for (const id of [0, 999, 2 ** 52]) {
      const none = await ask(`${url}/dlq/${id}`);
      expect([none.status, none.json.error.code]).toEqual([404, 'SLUICE_NOT_FOUND']);
    }
    expect((await ask(`${url}/dlq/${2n ** 70n}`)).status).toBe(400);
  });

  it('exports what can be imported again, and reads on only as fast as it is taken', async () => {
    const { url, db } = await started();
    const count = 4_000;
    await db.aexecute('CREATE TABLE wide (n INTEGER CHECK (n > 1000000), pad TEXT)');
    const rows = db.rows('wide');
    for (let n = 0; n < count; n++) rows.append({ n, pad: 'x'.repeat(3_000) });
    await db.aflush();
    let read = 0;
    let ended = 0;
    const original = db.dlq.export.bind(db.dlq);
    db.dlq.export = async function* (query) {
      try {
        for await (const line of original(query)) {
          read++;
          yield line;
        }
      } finally {
        ended++;
      }
    };
    const begin = () =>
      new Promise<IncomingMessage>((resolve, reject) => {
        request(`${url}/dlq/export`, { agent: false }, resolve).on('error', reject).end();
      });
    const standsStill = async () => {
      let before = -1;
      await eventually(async () => {
        before = read;
        await new Promise((resolve) => setTimeout(resolve, 300));
        return read > 0 && read === before;
      }, 'nothing more is read');
    };
    const slow = await begin();
    expect(slow.headers['content-type']).toBe(NDJSON);
    await standsStill();
    expect(read, 'lines that were read while nobody took them').toBeLessThan(count);
    let text = '';
    for await (const part of slow.setEncoding('utf8')) text += part as string;
    expect([text.split('\n').length, read, ended]).toEqual([count + 1, count, 1]);

    read = 0;
    const gone = await begin();
    await standsStill();
    gone.destroy();
    await eventually(() => ended === 2, 'it is given up with its client');
    expect(read).toBeLessThan(count);

    const head = await ask(`${url}/dlq/export`, { method: 'HEAD' });
    expect([head.status, head.headers['content-type'], head.text]).toEqual([200, NDJSON, '']);
    await db.dlq.clear('all');
    expect(await db.dlq.import(text)).toEqual({ imported: count, duplicates: 0 });
  });

  it('refuses what it does not understand, with a reason', async () => {
    const { url, db } = await started();
    await killRows(db, 1);
    const wrong = [
      '/dlq?limit=0',
      '/dlq?limit=10001',
      '/dlq?limit=x',
      '/dlq?after=-1',
      '/dlq?order=random',
      '/dlq?operation=drop',
      '/dlq?tabel=r',
      '/dlq?table=r&table=s',
      '/dlq?since=yesterday',
      '/dlq?since=2026-01-01T12:00',
      '/dlq?since=2026-13-01',
      '/dlq/summary?limit=1',
      '/dlq/summary?until=soon',
      '/dlq/export?order=newest',
      '/dlq/export?operation=drop',
      '/dlq/1?x=1',
    ];
    for (const path of wrong) {
      const { status, json } = await ask(url + path);
      expect([path, status, typeof json.error.message]).toEqual([path, 400, 'string']);
      expect(['HTTP_BAD_REQUEST', 'SLUICE_INVALID_OPTION']).toContain(json.error.code);
    }
    const methods: [method: string, path: string, allow: string][] = [
      ['POST', '/dlq', 'GET, HEAD'],
      ['POST', '/dlq/1', 'GET, HEAD'],
      ['DELETE', '/dlq/1', 'GET, HEAD'],
      ['GET', '/dlq/retry', 'POST'],
      ['GET', '/dlq/clear', 'POST'],
      ['HEAD', '/dlq/take', 'POST'],
      ['PUT', '/dlq/summary', 'GET, HEAD'],
    ];
    for (const [method, path, allow] of methods) {
      const { status, headers } = await ask(url + path, { method });
      expect([method, path, status, headers['allow']]).toEqual([method, path, 405, allow]);
    }
    const nowhere = await ask(`${url}/dlq/everything`);
    expect(nowhere.status).toBe(404);
    expect(nowhere.json.error.message).toContain('/dlq/retry');
  });
});

describe('dealing with dead letters over HTTP', () => {
  it('retries and clears by ids, by filter, and all', async () => {
    const { url, db } = await started();
    await killSome(db);
    const ids = (await db.dlq.list({ table: 'r' })).map(({ id }) => id);
    const again = await postJson(`${url}/dlq/retry`, { ids: [ids[0], ids[0], 999] });
    expect([again.status, again.json]).toEqual([200, { applied: 0, failed: 1, superseded: 0, missing: 1 }]);
    expect((await postJson(`${url}/dlq/clear`, { ids: [ids[2]] })).json).toEqual({ cleared: 1 });
    await repair(db);
    const future = new Date(Date.now() + 60_000).toISOString();
    const none = await postJson(`${url}/dlq/retry`, { filter: { table: 'r', since: future } });
    expect(none.json).toEqual({ applied: 0, failed: 0, superseded: 0, missing: 0 });
    const run = { filter: { table: 'R', until: future }, batchSize: 1, ratePerSecond: 500.5 };
    expect((await postJson(`${url}/dlq/retry`, run)).json).toEqual({
      applied: 2,
      failed: 0,
      superseded: 0,
      missing: 0,
    });
    expect((await postJson(`${url}/dlq/clear`, { filter: { operation: 'sql', since: 0 } })).json).toEqual({
      cleared: 1,
    });
    expect((await postJson(`${url}/dlq/retry`, { all: true })).json).toMatchObject({ failed: 2 });
    expect((await postJson(`${url}/dlq/clear`, { all: true })).json).toEqual({ cleared: 2 });
    expect(await db.afetchAll('SELECT n FROM r ORDER BY n')).toEqual([{ n: 0 }, { n: 1 }]);
    expect(db.dlq.size).toBe(0);
  });

  it('does nothing where the body does not say clearly what is meant', async () => {
    const { url, db } = await started();
    await killRows(db, 3);
    await repair(db);
    const bodies: unknown[] = [
      '',
      '{',
      'null',
      '[]',
      '"all"',
      '[1]',
      {},
      { all: false },
      { all: 'true' },
      { all: true, ids: [1] },
      { ids: [1], filter: { table: 'r' } },
      { ids: 'all' },
      { ids: 1 },
      { ids: ['1'] },
      { ids: [1.5] },
      { filter: {} },
      { filter: [] },
      { filter: 'all' },
      { filter: { tabel: 'r' } },
      { filter: { table: null } },
      { filter: { table: 'r', since: 'yesterday' } },
      { filter: { table: 'r', until: null } },
      { all: true, dryRun: true },
      { all: true, ratePerSecond: 0 },
      { all: true, ratePerSecond: '5' },
      { all: true, batchSize: 0 },
      { all: true, batchSize: 10_001 },
    ];
    for (const path of ['/dlq/retry', '/dlq/clear']) {
      for (const body of bodies) {
        const { status, json } = await postJson(url + path, body);
        expect([path, body, status]).toEqual([path, body, 400]);
        expect(['HTTP_BAD_REQUEST', 'SLUICE_INVALID_OPTION']).toContain(json.error.code);
      }
      expect((await postJson(`${url}${path}?all=true`, { all: true })).status).toBe(400);
    }
    const large = await postJson(`${url}/dlq/clear`, { ids: Array.from({ length: 300_000 }, (_, i) => i + 1) });
    expect([large.status, large.json.error.code]).toEqual([413, 'HTTP_BODY_TOO_LARGE']);
    expect(large.json.error.message).not.toContain('--body-max-bytes');
    expect([db.dlq.size, db.stats().deadLetters.retried]).toEqual([3, 0]);
  });

  it('lets nobody in who could not write either', async () => {
    const { url, db } = await started({ token: TOKEN });
    await killRows(db, 3);
    await repair(db);
    const authorization = `Bearer ${TOKEN}`;
    const before = db.stats().deadLetters;
    const all = { all: true };
    for (const path of ['/dlq/retry', '/dlq/clear', '/dlq/take']) {
      const statuses = [
        (await postJson(url + path, all)).status,
        (await postJson(url + path, all, { authorization: `${authorization}x` })).status,
        (await postJson(url + path, all, { authorization, host: 'evil.example' })).status,
        (await postJson(url + path, all, { authorization, origin: 'http://evil.example' })).status,
        (await postJson(url + path, all, { authorization, 'sec-fetch-site': 'cross-site' })).status,
        // What forms, and scripts that do not ask first, can send.
        (await postJson(url + path, all, { authorization, 'content-type': 'text/plain' })).status,
        (await postJson(url + path, all, { authorization, 'content-type': 'application/x-www-form-urlencoded' }))
          .status,
        (await postJson(url + path, all, { authorization, 'content-encoding': 'gzip' })).status,
        (await ask(url + path, { method: 'POST', headers: { authorization } })).status,
      ];
      expect([path, statuses]).toEqual([path, [401, 401, 403, 403, 403, 415, 415, 415, 415]]);
    }
    for (const path of ['/dlq', '/dlq/summary', '/dlq/export', '/dlq/1']) {
      expect((await ask(url + path)).status).toBe(401);
      expect((await ask(url + path, { headers: { authorization, origin: 'http://evil.example' } })).status).toBe(403);
      expect((await ask(url + path, { headers: { authorization } })).status).toBe(200);
    }
    expect(db.stats().deadLetters).toEqual(before);
    const allowed = await postJson(`${url}/dlq/retry`, all, { authorization, expect: '100-continue' });
    expect([allowed.status, allowed.json.applied]).toEqual([200, 3]);
  });

  it('tells how far a run is, line by line, to who asks for it', async () => {
    const { url, db } = await started();
    await killRows(db, 50);
    const accept = `application/json;q=0.5, ${NDJSON}`;
    const answer = await postJson(`${url}/dlq/retry`, { all: true, batchSize: 20 }, { accept });
    expect([answer.status, answer.headers['content-type']]).toEqual([200, NDJSON]);
    const lines = linesOf(answer);
    expect(lines.map(({ progress }) => (progress as { done?: number } | undefined)?.done)).toEqual([
      20,
      40,
      50,
      undefined,
    ]);
    expect(lines[0]).toEqual({ progress: { applied: 0, failed: 20, superseded: 0, missing: 0, done: 20, total: 50 } });
    expect(lines.at(-1)).toEqual({ result: { applied: 0, failed: 50, superseded: 0, missing: 0 } });
    const cleared = linesOf(await postJson(`${url}/dlq/clear`, { all: true, batchSize: 30 }, { accept }));
    expect(cleared).toEqual([
      { progress: { done: 30, total: 50 } },
      { progress: { done: 50, total: 50 } },
      { result: { cleared: 50 } },
    ]);
    // A request that is wrong is refused as any other.
    const wrong = await postJson(`${url}/dlq/retry`, { all: true, batchSize: 0 }, { accept });
    expect([wrong.status, wrong.json.error.code]).toEqual([400, 'SLUICE_INVALID_OPTION']);
  });

  it('a run that is slow shows that it lives', async () => {
    const { url, db } = await started();
    await killRows(db, 2);
    const answer = await postJson(`${url}/dlq/retry`, { all: true, ratePerSecond: 0.15 }, { accept: NDJSON });
    const progress = linesOf(answer).flatMap((line) => (line['progress'] === undefined ? [] : [line['progress']]));
    expect(progress).toMatchObject([{ done: 1 }, { done: 1 }, { done: 2 }]);
  });

  it('a client that goes away calls its run off, and every entry is in one place', async () => {
    const { url, db } = await started();
    const count = 4_000;
    await killRows(db, count);
    await repair(db);
    for (const accept of ['application/json', NDJSON]) {
      const before = db.stats().deadLetters;
      const sent = request(`${url}/dlq/retry`, {
        method: 'POST',
        agent: false,
        headers: { ...JSON_BODY, accept },
      });
      sent.on('error', () => {});
      sent.end(JSON.stringify({ all: true, batchSize: 50, ratePerSecond: 2_000 }));
      await eventually(() => db.stats().deadLetters.retried >= before.retried + 200, 'it is under way');
      sent.destroy();
      // Another run waits for its turn: that it gets one says that the first has ended.
      await postJson(`${url}/dlq/clear`, { ids: [] });
      const { retried, entries } = db.stats().deadLetters;
      expect(entries, 'entries that were not reached').toBeGreaterThan(500);
      const stored = await db.afetchOne<{ n: number; d: number }>(
        'SELECT count(*) AS n, count(DISTINCT n) AS d FROM r',
      );
      expect([stored, entries + retried]).toEqual([{ n: retried, d: retried }, count]);
    }
    const rest = await postJson(`${url}/dlq/retry`, { all: true });
    expect(rest.json).toMatchObject({ applied: count - (db.stats().deadLetters.retried - rest.json.applied) });
    expect(await db.afetchOne('SELECT count(DISTINCT n) AS d, count(*) AS n FROM r')).toEqual({ d: count, n: count });
    expect(db.dlq.size).toBe(0);
  });

  it('closing does not wait for a run that takes for ever, and says so', async () => {
    const collector = await started();
    const { url, db } = collector;
    await killRows(db, 20);
    const plain = postJson(`${url}/dlq/retry`, { all: true, batchSize: 1, ratePerSecond: 0.01 });
    await eventually(async () => (await db.dlq.list({ order: 'oldest', limit: 1 }))[0]?.attempts === 2, 'it runs');
    const streamed = postJson(`${url}/dlq/clear`, { all: true }, { accept: NDJSON });
    const start = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await collector.close()).toEqual({ pending: 0 });
    expect(performance.now() - start, 'time to close').toBeLessThan(8_000);
    for (const { status, json } of await Promise.all([plain, streamed])) {
      expect([status, json.error.code]).toEqual([503, 'SLUICE_CLOSED']);
    }
  });

  it('take lets go what stands still, and /readyz says why it stood', async () => {
    const { url, db } = await started();
    await db.aset('before', 1);
    await db.aflush();
    await db.aexecute('ALTER TABLE data RENAME COLUMN value TO wrong');
    db.set('a', 1);
    await eventually(async () => (await ask(`${url}/readyz`)).status === 503, 'it stands still');
    expect((await ask(`${url}/readyz`)).json).toEqual({
      ready: false,
      state: 'degraded',
      reason: 'stalled',
      stall: 'config',
    });
    expect((await postJson(`${url}/dlq/take`, { all: true })).status).toBe(400);
    expect(db.stats().stall).toBe('config');
    expect((await postJson(`${url}/dlq/take`, {})).json).toEqual({ dead: 1 });
    expect((await postJson(`${url}/dlq/take`, '')).json).toEqual({ dead: 0 });
    expect((await ask(`${url}/readyz`)).json).toEqual({ ready: true, state: 'ok' });
    expect((await ask(`${url}/dlq`)).json.entries).toMatchObject([{ key: 'a', errorClass: 'config' }]);
  });

  it('a full queue stands still too, and goes on when it is cleared over HTTP', async () => {
    const { url, db } = await started({}, { dlq: { maxEntries: 3 } });
    await killRows(db, 3);
    await db.table('fine').aset('k', 1);
    await eventually(async () => (await ask(`${url}/readyz`)).json.stall === 'queue-full', 'it stands still');
    expect((await postJson(`${url}/dlq/clear`, { filter: { table: 'r' } })).json).toEqual({ cleared: 3 });
    await eventually(async () => (await ask(`${url}/readyz`)).status === 200, 'it goes on');
    expect(db.stats().stall).toBeUndefined();
  });
});
