import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import { lockFromOutside } from '../support/child.ts';
import { eventually } from '../support/eventually.ts';
import { type Example, startExample } from '../support/example.ts';
import { type Answer, ask } from '../support/http.ts';
import { tempDir } from '../support/temp-dir.ts';

const JSON_BODY = { 'content-type': 'application/json' };

interface Server extends Example {
  readonly file: string;
  /** How many readings were answered with 201. */
  accepted(): number;
  post(body: unknown): Promise<Answer>;
}

async function startServer(name: string, env: Record<string, string> = {}): Promise<Server> {
  const file = join(tempDir(), 'telemetry.db');
  const example = await startExample(name, { FILE: file, ...env });
  let accepted = 0;
  const post = async (body: unknown) => {
    const url = `${example.url}/readings`;
    const answer = await ask(url, { method: 'POST', headers: JSON_BODY, body: JSON.stringify(body) });
    if (answer.status === 201) accepted += (answer.json as { accepted: number }).accepted;
    return answer;
  };
  return { ...example, file, post, accepted: () => accepted };
}

const readings = (count: number, room = 'kitchen') =>
  Array.from({ length: count }, (_, i) => ({ room, celsius: 20 + i / 10, at: 1_700_000_000_000 + i }));

async function stop({ child, finished }: Server): Promise<void> {
  child.kill('SIGTERM');
  const ended = await finished;
  expect(ended).toMatchObject({ code: 0, signal: null, stderr: '' });
  expect(ended.stdout).toMatch(/"pending":0,.*"msg":"closed /);
}

/** What is in the file once the process is gone, read by SQLite alone. */
function applied(file: string): { rows: number; latest: unknown } {
  const db = new Sqlite(file, { readonly: true });
  const rows = db.prepare('SELECT count(*) FROM readings').pluck().get() as number;
  const latest: unknown = JSON.parse(
    db.prepare("SELECT value FROM latest WHERE key = 'kitchen'").pluck().get() as string,
  );
  db.close();
  return { rows, latest };
}

describe.each(['express', 'fastify'])('examples/%s', (name) => {
  test('takes readings, shows them, serves metrics, and has all of them in SQLite after SIGTERM', async () => {
    const server = await startServer(name);
    expect((await server.post(readings(5))).status).toBe(201);
    expect((await ask(`${server.url}/rooms/kitchen`)).json).toMatchObject({ celsius: 20.4, at: 1_700_000_000_004 });
    expect((await ask(`${server.url}/rooms/attic`)).status).toBe(404);
    const found = await ask(`${server.url}/readings?room=kitchen&limit=2`);
    expect(found.json).toEqual([
      { at: 1_700_000_000_004, room: 'kitchen', celsius: 20.4 },
      { at: 1_700_000_000_003, room: 'kitchen', celsius: 20.3 },
    ]);
    for (const bad of [[{ room: 'kitchen' }], [...readings(3), { room: '', celsius: 1 }], [null], 'x']) {
      expect((await server.post(bad)).status).toBe(400);
    }
    expect((await ask(`${server.url}/readings?limit=2`)).status).toBe(400);
    expect((await ask(`${server.url}/metrics`)).text).toMatch(/^sluice_writes_accepted_total\{.*op="append".*\} 5$/m);
    const more = await Promise.all(Array.from({ length: 20 }, () => server.post(readings(50))));
    expect(more.map(({ status }) => status)).toEqual(more.map(() => 201));
    await stop(server);
    expect(applied(server.file)).toEqual({ rows: 1_005, latest: expect.objectContaining({ celsius: 24.9 }) });
    expect(server.accepted()).toBe(1_005);
  });

  test('answers 503 while it is full, and goes on', async () => {
    const server = await startServer(name, { MAX_STAGED: '200' });
    expect((await server.post(readings(1))).status).toBe(201);
    const unlock = await lockFromOutside(server.file);
    let full: Answer | undefined;
    for (let i = 0; i < 50 && full === undefined; i++) {
      const answer = await server.post(readings(10));
      if (answer.status !== 201) full = answer;
    }
    expect(full).toMatchObject({ status: 503, headers: { 'retry-after': '1' }, json: { code: 'SLUICE_FULL' } });
    // What was accepted is read all the same.
    expect((await ask(`${server.url}/rooms/kitchen`)).json).toMatchObject({ celsius: 20.9 });
    await unlock();
    await eventually(async () => (await server.post(readings(10))).status === 201, 'it takes readings again');
    await stop(server);
    expect(applied(server.file).rows).toBe(server.accepted());
    expect(server.accepted()).toBeGreaterThan(50);
  });
});
