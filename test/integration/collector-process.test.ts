import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Sqlite from 'better-sqlite3';
import { describe, expect, it } from 'vitest';
import { serve, sluice, start } from '../support/cli.ts';
import { eventually } from '../support/eventually.ts';
import { parseText, sumOf } from '../support/exposition.ts';
import { ask, post, sqlUrl } from '../support/http.ts';
import { seededRandom } from '../support/seed.ts';
import { tempDir } from '../support/temp-dir.ts';

const ENDLESS = 'WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r';

/** What a life without incidents leaves on standard error. */
const UNTROUBLED: unknown = expect.stringMatching(/^sluice: opened \S+.*\nsluice: closed \S+\n$/);

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** The processes that a process has started. Linux only, as is the test that needs it. */
async function childrenOf(pid: number): Promise<number[]> {
  const { readFile } = await import('node:fs/promises');
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.trim().split(/\s+/).filter(Boolean).map(Number);
}

/** A port that nobody listens on at the moment. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

describe('sluice serve', () => {
  it('answers whoever knocks while it starts, from the first connection on', async () => {
    const port = await freePort();
    start(['serve', join(tempDir(), 'knock.db'), '--port', String(port)]);
    let answered = 0;
    let refused = 0;
    const deadline = performance.now() + 20_000;
    while (answered < 200 && performance.now() < deadline) {
      try {
        const answer = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(2_000) });
        expect(answer.status).toBe(200);
        answered++;
      } catch (error) {
        // Nobody there yet is fine; somebody who does not answer is not.
        expect((error as Error).name).not.toBe('TimeoutError');
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(0);
    expect(answered).toBe(200);
  });

  it('killed under load and started again, nothing answered with success is missing', async () => {
    const random = seededRandom(71);
    const file = join(tempDir(), 'kill.db');
    const rounds = 4;
    const batch = 200;
    const answered = new Set<string>();
    const sent = new Set<string>();
    let cutOff = 0;
    for (let round = 0; round < rounds; round++) {
      const { child, url, finished } = await serve([file]);
      let running = true;
      const writer = async (name: string) => {
        for (let n = 0; running; n++) {
          const id = `${round}/${name}/${n}`;
          sent.add(id);
          const body = Array.from({ length: batch }, (_, i) => JSON.stringify({ id, i })).join('\n');
          try {
            const { status, json } = await post(`${url}/write/t`, body);
            if (status === 200 && json.accepted === batch) answered.add(id);
          } catch {
            cutOff++;
          }
        }
      };
      const writers = ['a', 'b', 'c'].map(writer);
      const before = answered.size;
      await eventually(() => answered.size > before + 3, 'some requests are answered');
      await sleep(random() * 150);
      child.kill('SIGKILL');
      const { signal } = await finished;
      running = false;
      await Promise.all(writers);
      expect(signal).toBe('SIGKILL');
    }
    expect(cutOff, 'requests that the kill cut off').toBeGreaterThan(0);

    const { child, url, finished } = await serve([file, '--no-source']);
    await eventually(async () => (await ask(`${url}/readyz`)).status === 200, 'it is ready');
    child.kill('SIGTERM');
    expect(await finished).toMatchObject({ code: 0, stderr: UNTROUBLED });
    const db = new Sqlite(file, { readonly: true });
    const stored = db.prepare('SELECT id, count(*) AS n, count(DISTINCT i) AS d FROM t GROUP BY id').all() as {
      id: string;
      n: number;
      d: number;
    }[];
    db.close();
    const counts = new Map(stored.map(({ id, n }) => [id, n]));
    const missing = [...answered].filter((id) => counts.get(id) !== batch);
    expect(missing, 'requests answered with success whose rows are not all there').toEqual([]);
    expect(
      stored.filter(({ id, n, d }) => n !== d || !sent.has(id)),
      'rows that are there twice, or were never sent',
    ).toEqual([]);
  });

  it('a second one on the same file ends at once and names the lock and the process', async () => {
    const file = join(tempDir(), 'one.db');
    const first = await serve([file, '--no-source']);
    const second = await sluice(['serve', file, '--port', '0']);
    expect(second.code).toBe(1);
    expect(second.stderr).toContain('SLUICE_LOCKED');
    expect(second.stderr).toContain(`${file}-log/lock.db`);
    expect(second.stderr).toContain(`process ${first.child.pid} `);
    expect(second.stderr).not.toMatch(/\n\s+at /);
    expect(second.stdout).toBe('');
  });

  it('SIGTERM finishes the request in flight, applies the backlog and exits 0', async () => {
    const file = join(tempDir(), 'term.db');
    const { child, url, finished } = await serve([file, '--no-source', '--durability', 'os']);
    const lines = 100_000;
    const body = Array.from({ length: lines }, (_, n) => `{"n":${n}}`).join('\n');
    const answer = post(`${url}/write/t`, body);
    await eventually(async () => {
      const { text } = await ask(`${url}/metrics`);
      return sumOf(parseText(text), 'sluice_writes_accepted_total') > 0;
    }, 'the request is being read');
    child.kill('SIGTERM');
    expect((await answer).json).toMatchObject({ accepted: lines, rejected: 0 });
    expect(await finished).toMatchObject({ code: 0, signal: null, stderr: UNTROUBLED });
    const db = new Sqlite(file, { readonly: true });
    expect(db.prepare('SELECT count(DISTINCT n) FROM t').pluck().get()).toBe(lines);
    db.close();
  });

  it('a second signal ends it at once', async () => {
    const file = join(tempDir(), 'twice.db');
    const { child, url, finished, stdout } = await serve([file, '--no-source']);
    // A request that never ends holds the first one up.
    const held = ask(`${url}/write/t`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-length': '100', expect: '100-continue' },
    });
    held.catch(() => undefined);
    await sleep(100);
    child.kill('SIGINT');
    await eventually(() => stdout().includes('SIGINT'), 'it is stopping');
    child.kill('SIGINT');
    expect((await finished).code).toBe(130);
  });

  it.runIf(process.platform === 'linux')(
    'its process for queries does not outlive it, whatever the query does',
    async () => {
      const { child, url } = await serve([join(tempDir(), 'orphan.db'), '--no-source', '--query-timeout', '60000']);
      await ask(sqlUrl(url, 'SELECT 1'));
      const [queries] = await childrenOf(child.pid as number);
      const endless = ask(sqlUrl(url, ENDLESS));
      endless.catch(() => undefined);
      await sleep(200);
      expect(isAlive(queries as number)).toBe(true);
      child.kill('SIGKILL');
      await eventually(() => !isAlive(queries as number), 'it is gone', 5_000);
    },
  );

  it('without a token it does not listen where others can reach it', async () => {
    const file = join(tempDir(), 'open.db');
    const { code, stderr } = await sluice(['serve', file, '--host', '0.0.0.0', '--port', '0']);
    expect(code).toBe(1);
    expect(stderr).toContain('SLUICE_TOKEN');
    expect(stderr).not.toMatch(/\n\s+at /);
    const { url } = await serve([file, '--host', '0.0.0.0', '--no-source'], { SLUICE_TOKEN: 'correct-horse-battery' });
    expect((await ask(`${url}/readyz`)).status).toBe(401);
    const authorization = 'Bearer correct-horse-battery';
    expect((await ask(`${url}/readyz`, { headers: { authorization } })).status).toBe(200);
  });
});
