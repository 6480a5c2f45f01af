import { join } from 'node:path';
import { open, SluiceError } from 'sluicedb';
import { type Collector, type CollectorOptions, startCollector } from 'sluicedb/server';
import { describe, expect, it, onTestFinished } from 'vitest';
import { ask, post } from '../support/http.ts';
import { tempDir } from '../support/temp-dir.ts';

const TOKEN = 'correct-horse-battery-staple';

async function started(options: CollectorOptions = {}): Promise<Collector & { port: string }> {
  const collector = await startCollector({ file: ':memory:', port: 0, ...options });
  onTestFinished(async () => {
    await collector.close();
  });
  return { ...collector, port: new URL(collector.url).port };
}

async function problemsOf(options: unknown): Promise<readonly string[]> {
  const error: unknown = await startCollector(options as CollectorOptions).then(
    async (collector) => {
      await collector.close();
    },
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SluiceError);
  expect((error as SluiceError).code).toBe('SLUICE_INVALID_OPTION');
  return (error as SluiceError).problems;
}

describe('who may come in', () => {
  it('a name that was made to point here is refused, whatever is asked for', async () => {
    const { url, port } = await started();
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `LOCALHOST:${port}`, `[::1]:${port}`]) {
      expect([host, (await ask(`${url}/readyz`, { headers: { host } })).status]).toEqual([host, 200]);
    }
    for (const host of [
      'evil.example',
      `evil.example:${port}`,
      'localhost',
      '127.0.0.1',
      `localhost:${port}.evil.example`,
      'localhost:1',
    ]) {
      for (const path of ['/healthz', '/metrics', '/query?sql=SELECT+1', '/nowhere']) {
        const { status, json } = await ask(url + path, { headers: { host } });
        expect([host, path, status, json.error.code]).toEqual([host, path, 403, 'HTTP_FORBIDDEN']);
      }
    }
  });

  it('names of its own can be added', async () => {
    const { url, port } = await started({ allowedHosts: ['sluice.internal', 'other.internal:8080'] });
    const status = async (host: string) => (await ask(`${url}/readyz`, { headers: { host } })).status;
    expect(await status('sluice.internal')).toBe(200);
    expect(await status(`sluice.internal:${port}`)).toBe(200);
    expect(await status('other.internal:8080')).toBe(200);
    expect(await status('other.internal')).toBe(403);
  });

  it('a page of another origin can neither read nor write', async () => {
    const { url, db } = await started();
    for (const origin of ['http://evil.example', 'null', 'http://127.0.0.1:1', 'file://']) {
      expect((await post(`${url}/write/t`, '{"a":1}', { origin })).status).toBe(403);
      expect((await ask(`${url}/metrics`, { headers: { origin } })).status).toBe(403);
    }
    // An <img> or a <script> has no Origin, but says where it is from.
    for (const site of ['cross-site', 'same-site']) {
      expect((await ask(`${url}/query?sql=SELECT+1`, { headers: { 'sec-fetch-site': site } })).status).toBe(403);
    }
    // Forms, and scripts that do not ask first, can send these types only.
    for (const type of ['text/plain', 'application/x-www-form-urlencoded']) {
      expect((await post(`${url}/write/t`, '{"a":1}', { 'content-type': type })).status).toBe(415);
    }
    expect(db.stats().accepted).toBe(0);
    const own = await post(`${url}/write/t`, '{"a":1}', { origin: url, 'sec-fetch-site': 'same-origin' });
    expect(own.status).toBe(200);
    expect(own.headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
      'cross-origin-resource-policy': 'same-origin',
    });
    expect(Object.keys(own.headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
  });

  it('with a token, everything but /healthz needs it', async () => {
    const { url, db } = await started({ token: TOKEN });
    const paths = ['/readyz', '/metrics', '/query?sql=SELECT+1', '/kv/t/k', '/write/t', '/nowhere', '/healthz/'];
    for (const authorization of [
      '',
      'Bearer',
      `Bearer ${TOKEN}x`,
      `Bearer ${TOKEN.slice(1)}`,
      `Basic ${TOKEN}`,
      TOKEN,
    ]) {
      for (const path of paths) {
        const { status, headers } = await ask(url + path, { headers: { authorization } });
        expect([path, status, headers['www-authenticate']]).toEqual([path, 401, 'Bearer']);
      }
      expect((await post(`${url}/write/t`, '{"a":1}', { authorization })).status).toBe(401);
    }
    expect(db.stats().accepted).toBe(0);
    expect((await ask(`${url}/healthz`)).status).toBe(200);
    expect((await post(`${url}/write/t`, '{"a":1}', { authorization: `bearer ${TOKEN}` })).status).toBe(200);
  });

  it('is not told to send a body that will be refused', async () => {
    const { url } = await started({ token: TOKEN });
    const refused = await post(`${url}/write/t`, '{"a":1}', { expect: '100-continue' });
    expect(refused.status).toBe(401);
    const taken = await post(`${url}/write/t`, '{"a":1}', { expect: '100-continue', authorization: `Bearer ${TOKEN}` });
    expect(taken.status).toBe(200);
  });
});

describe('where it listens', () => {
  it('an address that others can reach needs a token', async () => {
    for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.com']) {
      const [problem] = await problemsOf({ file: ':memory:', port: 0, host });
      expect(problem).toMatch(/SLUICE_TOKEN/);
    }
    const [short] = await problemsOf({ file: ':memory:', port: 0, host: '0.0.0.0', token: 'short' });
    expect(short).toMatch(/at least 16/);
    expect(short).not.toContain("'short'");
    const { url } = await started({ host: '0.0.0.0', token: TOKEN });
    // Nobody knows under which names it can be reached; the token decides.
    const authorization = `Bearer ${TOKEN}`;
    expect((await ask(`${url}/readyz`, { headers: { host: 'any.example', authorization } })).status).toBe(200);
    expect((await ask(`${url}/readyz`, { headers: { host: 'any.example' } })).status).toBe(401);
  });

  it('the other loopback addresses need none', async () => {
    for (const host of ['localhost', '127.0.0.2']) {
      const { url } = await started({ host });
      expect((await ask(`${url}/readyz`)).status).toBe(200);
    }
  });
});

describe('options', () => {
  it('are all reported at once, those of the database too', async () => {
    const problems = await problemsOf({
      port: 70_000,
      tokn: TOKEN,
      token: 5,
      allowedHosts: 'x',
      bodyMaxBytes: 0,
      source: 'yes',
      open: { durability: 'sometimes', flsh: {} },
    });
    const text = problems.join('\n');
    for (const name of ['port', "'tokn'", 'token', 'allowedHosts', 'bodyMaxBytes', 'source', 'durability', "'flsh'"]) {
      expect(text).toContain(name);
    }
    expect(text).toContain("did you mean 'token'");
  });

  it('a database that was passed in is served, and stays open', async () => {
    const db = await open(':memory:');
    onTestFinished(async () => {
      await db.close();
    });
    const collector = await startCollector({ db, port: 0 });
    await post(`${collector.url}/write/t`, '{"a":1}');
    expect(await collector.close()).toEqual({ pending: 0 });
    expect(db.state).toBe('ok');
    expect(await db.afetchAll('SELECT * FROM t')).toEqual([{ a: 1 }]);
    expect(await problemsOf({ db, file: 'x' })).toHaveLength(1);
    expect(await problemsOf({ db: {} })).toHaveLength(1);
  });

  it('a port that is taken leaves nothing open', async () => {
    const { port } = await started();
    const file = join(tempDir(), 'again.db');
    await expect(startCollector({ file, port: Number(port) })).rejects.toMatchObject({ code: 'SLUICE_INVALID_OPTION' });
    const again = await startCollector({ file, port: 0 });
    await again.close();
  });
});
