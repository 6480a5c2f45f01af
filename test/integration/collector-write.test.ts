import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import type { Database } from 'sluicedb';
import { type Collector, type CollectorOptions, startCollector } from 'sluicedb/server';
import { describe, expect, it, onTestFinished } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { ask, NDJSON, post } from '../support/http.ts';
import { tempDir } from '../support/temp-dir.ts';

async function started(options: CollectorOptions = {}): Promise<Collector> {
  const collector = await startCollector({ file: join(tempDir(), 'c.db'), port: 0, ...options });
  onTestFinished(async () => {
    await collector.close();
  });
  return collector;
}

function rowsOf(db: Database, table: string): Promise<Record<string, unknown>[]> {
  return db.afetchAll(`SELECT * FROM ${table}`);
}

describe('POST /write/:table', () => {
  it('a bad line has an error of its own and costs no other line', async () => {
    const { url, db } = await started();
    const lines = [
      '{"a":1}',
      'not json',
      '[1]',
      '',
      '{"a":1e999}',
      '{}',
      `{"a":"${'x'.repeat(1024 * 1024)}"}`,
      '{"a":2,"b":{"c":[true]}}',
      '{"key":"k","value":1}',
      '{"a":1,"A":2,"z":3}',
      '{"a":3,"b":"007"}',
    ];
    const body = Buffer.concat([Buffer.from(`${lines.join('\n')}\n`), Buffer.from('7b2261223a22ff227d', 'hex')]);
    const { status, json } = await post(`${url}/write/readings`, body);
    expect(status).toBe(200);
    expect(json).toMatchObject({ accepted: 3, rejected: 8, errorsTruncated: false });
    expect(json.errors.map(({ line, code }: { line: number; code: string }) => [line, code])).toEqual([
      [2, 'SLUICE_INVALID_VALUE'],
      [3, 'SLUICE_INVALID_VALUE'],
      [5, 'SLUICE_INVALID_VALUE'],
      [6, 'SLUICE_INVALID_VALUE'],
      [7, 'SLUICE_INVALID_VALUE'],
      [9, 'SLUICE_CONFLICT'],
      [10, 'SLUICE_INVALID_VALUE'],
      [12, 'SLUICE_INVALID_VALUE'],
    ]);
    expect(await rowsOf(db, 'readings')).toEqual([
      { a: 1, b: null },
      { a: 2, b: '{"c":[true]}' },
      { a: 3, b: '007' },
    ]);
    expect(db.stats().deadLettered).toBe(0);
  });

  it('what was sent is what is stored, whatever the first value of a column was', async () => {
    const { url, db } = await started();
    await post(`${url}/write/t`, '{"v":7}\n{"v":"007"}\n{"v":1.5}\n{"v":null}\n{"v":"x"}\n{"V":1765000000000}');
    const stored = await db.afetchAll('SELECT v, typeof(v) AS type FROM t');
    expect(stored).toEqual([
      { v: 7, type: 'integer' },
      { v: '007', type: 'text' },
      { v: 1.5, type: 'real' },
      { v: null, type: 'null' },
      { v: 'x', type: 'text' },
      { v: 1765000000000, type: 'integer' },
    ]);
  });

  it('pairs can be read back at once, by any spelling of the table', async () => {
    const { url } = await started();
    const pairs = '\ufeff{"key":"","value":0}\r\n{"key":"ä/ü %","value":{"x":[1,null]}}\r\n{"value":"v","key":"k"}';
    expect((await post(`${url}/write/Settings`, pairs)).json).toMatchObject({ accepted: 3, rejected: 0 });
    const get = (key: string) => ask(`${url}/kv/settings/${encodeURIComponent(key)}`);
    expect((await get('')).json).toBe(0);
    expect((await get('ä/ü %')).json).toEqual({ x: [1, null] });
    expect((await get('k')).json).toBe('v');
    expect((await get('nobody')).status).toBe(404);
    expect((await ask(`${url}/kv/nowhere/k`)).json.error.code).toBe('SLUICE_NOT_FOUND');
    expect((await ask(`${url}/kv/settings/%ff`)).status).toBe(400);
  });

  it('bytes come back as they are', async () => {
    const { url, db } = await started();
    db.table('files').set('raw', Uint8Array.of(0, 255, 10) as never);
    const { headers, text } = await ask(`${url}/kv/files/raw`);
    expect(headers['content-type']).toBe('application/octet-stream');
    expect(headers['content-length']).toBe('3');
    expect(text.length).toBe(3);
  });

  it('lines of the other kind are refused, with 409 when there are no others', async () => {
    const { url, db } = await started();
    const wrongKey = await post(`${url}/write/t`, '{"key":1,"value":2}');
    expect([wrongKey.status, wrongKey.json.errors[0].code]).toEqual([400, 'SLUICE_INVALID_KEY']);
    // A line that was refused has decided nothing.
    expect((await post(`${url}/write/t`, '{"a":1}')).status).toBe(200);
    const pairs = await post(`${url}/write/t`, '{"key":"k","value":2}');
    expect([pairs.status, pairs.json.errors[0].code]).toEqual([409, 'SLUICE_CONFLICT']);
    await db.aexecute('CREATE VIEW seen AS SELECT 1 AS a');
    expect((await post(`${url}/write/seen`, '{"a":1}')).status).toBe(409);
    expect(db.stats().deadLettered).toBe(0);
  });

  it('a table that was written past the collector is known too', async () => {
    const { url, db } = await started({ open: { flush: { mode: 'manual' } } });
    db.table('mine').set('k', 1);
    expect((await post(`${url}/write/mine`, '{"a":1}')).status).toBe(409);
    db.rows('log', { columns: { n: 'integer' } }).append({ n: 1 });
    expect((await post(`${url}/write/log`, '{"key":"k","value":1}')).status).toBe(409);
  });

  it('all lines bad is 400, no lines at all is 200', async () => {
    const { url } = await started();
    const bad = await post(`${url}/write/t`, 'x\n'.repeat(150));
    expect(bad.status).toBe(400);
    expect(bad.json).toMatchObject({ accepted: 0, rejected: 150, errorsTruncated: true });
    expect(bad.json.errors).toHaveLength(100);
    const empty = await post(`${url}/write/t`, '\n\n');
    expect([empty.status, empty.json.accepted, empty.json.rejected]).toEqual([200, 0, 0]);
  });

  it('names, paths, methods and types that do not fit are refused', async () => {
    const { url } = await started();
    for (const name of ['sqlite_x', '_sluice_state', '', '%00', 'x'.repeat(129)]) {
      const { status, json } = await post(`${url}/write/${name}`, '{"a":1}');
      expect([name, status, json.error.code]).toEqual([name, 400, 'SLUICE_INVALID_OPTION']);
    }
    expect((await post(`${url}/writes/t`, '{}')).status).toBe(404);
    expect((await ask(`${url}/`)).status).toBe(404);
    const get = await ask(`${url}/write/t`);
    expect([get.status, get.headers.allow]).toEqual([405, 'POST']);
    const put = await ask(`${url}/metrics`, { method: 'PUT' });
    expect([put.status, put.headers.allow]).toEqual([405, 'GET, HEAD']);
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
      'application/jsonx',
    ]) {
      expect((await post(`${url}/write/t`, '{"a":1}', { 'content-type': type })).status).toBe(415);
    }
    expect((await ask(`${url}/write/t`, { method: 'POST', body: '{"a":1}' })).status).toBe(415);
    expect((await post(`${url}/write/t`, 'x', { 'content-encoding': 'gzip' })).status).toBe(415);
    for (const type of ['application/json; charset=utf-8', 'application/JSONL', 'application/ndjson']) {
      expect((await post(`${url}/write/t`, '{"a":1}', { 'content-type': type })).status).toBe(200);
    }
  });

  it('a body over the limit is 413; the lines before the limit stay', async () => {
    const { url, db } = await started({ bodyMaxBytes: 1_000 });
    const declared = await post(`${url}/write/t`, '{"a":1}\n'.repeat(200));
    expect([declared.status, declared.json.error.code]).toEqual([413, 'HTTP_BODY_TOO_LARGE']);
    expect(db.stats().accepted).toBe(0);
    const chunked = await post(`${url}/write/t`, '{"a":1}\n'.repeat(200), { 'transfer-encoding': 'chunked' });
    expect([chunked.status, chunked.json.accepted, chunked.json.error.code]).toEqual([413, 125, 'HTTP_BODY_TOO_LARGE']);
    expect(await rowsOf(db, 't')).toHaveLength(125);
  });

  it('a connection can be used again after an answer that came before the end of the body', async () => {
    const { url } = await started({ bodyMaxBytes: 1_000 });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    onTestFinished(() => agent.destroy());
    const large = Buffer.from('{"a":1}\n'.repeat(400_000));
    const chunked = { ...NDJSON, 'transfer-encoding': 'chunked' };
    const statuses: number[] = [];
    const ports = new Set<number | undefined>();
    for (let i = 0; i < 3; i++) {
      await new Promise<void>((resolve, reject) => {
        const sent = request(`${url}/write/t`, { method: 'POST', agent, headers: chunked }, (response) => {
          statuses.push(response.statusCode ?? 0);
          ports.add(response.socket.localPort);
          response.resume().on('end', resolve);
        });
        sent.on('error', reject);
        sent.end(large);
      });
    }
    expect(statuses).toEqual([413, 413, 413]);
    expect(ports.size).toBe(1);
  });

  it('a body that stalls is 408; the lines that were complete stay', async () => {
    const { url, db } = await started({ requestTimeoutMs: 200 });
    const answered = new Promise<number | undefined>((resolve, reject) => {
      const sent = request(`${url}/write/t`, { method: 'POST', headers: NDJSON }, (response) => {
        response.resume();
        resolve(response.statusCode);
        response.on('end', () => sent.destroy());
      });
      sent.on('error', reject);
      sent.write('{"a":1}\n{"a":2}\n{"a":');
    });
    expect(await answered).toBe(408);
    expect(await rowsOf(db, 't')).toHaveLength(2);
  });

  it('a sender that goes away leaves whole lines behind, and no half of one', async () => {
    const { url, db } = await started();
    const { port } = new URL(url);
    const head = `POST /write/t HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n`;
    const socket = connect(Number(port), '127.0.0.1', () => socket.write(`${head}{"a":1}\n{"a":2}`));
    // The table and its row are two writes.
    await eventually(() => db.stats().accepted >= 2, 'the line is taken');
    socket.destroy();
    await eventually(async () => (await ask(`${url}/healthz`)).status === 200, 'the connection is gone');
    await post(`${url}/write/other`, '{"x":1}');
    expect(await rowsOf(db, 't')).toEqual([{ a: 1 }]);
  });

  it('200,000 lines go through 64 KiB of staging: the sender is held back, nothing is missing', async () => {
    const { url, db } = await started({
      open: { durability: 'os', staging: { maxBytes: 64 * 1024 } },
    });
    const lines = 200_000;
    const pad = 'x'.repeat(150);
    let next = 0;
    let sentBytes = 0;
    let mostStaged = 0;
    let mostAhead = 0;
    let paused = 0;
    const answer = await new Promise<{ status: number | undefined; text: string }>((resolve, reject) => {
      const sent = request(`${url}/write/t`, { method: 'POST', headers: NDJSON }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        response.on('end', () => resolve({ status: response.statusCode, text }));
      });
      sent.on('error', reject);
      const more = () => {
        for (;;) {
          if (next === lines) return void sent.end();
          const part: string[] = [];
          for (const end = Math.min(lines, next + 500); next < end; next++) part.push(`{"n":${next},"pad":"${pad}"}\n`);
          const text = part.join('');
          sentBytes += text.length;
          const { stagedBytes, accepted } = db.stats();
          mostStaged = Math.max(mostStaged, stagedBytes);
          mostAhead = Math.max(mostAhead, sentBytes - accepted * (pad.length + 10));
          if (sent.write(text)) continue;
          paused++;
          sent.once('drain', more);
          return;
        }
      };
      more();
    });
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.text)).toMatchObject({ accepted: lines, rejected: 0 });
    const [sum] = await db.afetchAll('SELECT count(*) AS n, count(DISTINCT n) AS d, sum(n) AS s FROM t');
    expect(sum).toEqual({ n: lines, d: lines, s: (lines * (lines - 1)) / 2 });
    expect(mostStaged).toBeGreaterThan(0);
    expect(mostStaged).toBeLessThanOrEqual(64 * 1024);
    expect(paused, 'how often the sender had to wait').toBeGreaterThan(10);
    // What is between sender and staging is the kernel's and the stream's buffers, not the body.
    expect(mostAhead).toBeLessThan(sentBytes / 2);
    expect(db.stats().refused + db.stats().flushes).toBeGreaterThan(50);
  });

  it('503 with Retry-After while there is no room, and the answer says how many lines were taken', async () => {
    const file = join(tempDir(), 'full.db');
    const { url, db } = await started({ file, fullWaitMs: 1_000, open: { staging: { maxEntries: 100 } } });
    await post(`${url}/write/t`, '{"a":0}');
    await db.aflush();
    db.on('failure', () => undefined);
    const other = new Sqlite(file);
    other.exec('BEGIN IMMEDIATE');
    const body = Array.from({ length: 500 }, (_, i) => `{"a":${i + 1}}`).join('\n');
    const full = await post(`${url}/write/t`, body);
    expect([full.status, full.headers['retry-after'], full.json.error.code]).toEqual([503, '1', 'SLUICE_FULL']);
    expect(full.json.accepted).toBeGreaterThanOrEqual(50);
    expect(full.json.accepted).toBeLessThanOrEqual(100);
    other.close();
    await db.aflush();
    expect(await rowsOf(db, 't')).toHaveLength(1 + full.json.accepted);
    expect((await post(`${url}/write/t`, body)).status).toBe(200);
  });
});
