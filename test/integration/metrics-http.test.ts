import { Agent, createServer, type RequestListener, request, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import express from 'express';
import fc from 'fast-check';
import fastify from 'fastify';
import { Counter, Gauge, Registry } from 'prom-client';
import { createMetrics, metricsFetchHandler, metricsHandler, serveMetrics } from 'sluicedb/metrics';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import {
  fetched,
  isConserved,
  OPENMETRICS,
  parseOpenMetrics,
  parseText,
  type Scrape,
  sumOf,
  TEXT,
} from '../support/exposition.ts';
import { type Answer, ask } from '../support/http.ts';
import { openTemp } from '../support/open-temp.ts';
import { seededRandom } from '../support/seed.ts';

/** Starts a server on a free port until the test ends, and returns where it is. */
async function listen(server: Server | RequestListener): Promise<string> {
  const started = typeof server === 'function' ? createServer(server) : server;
  onTestFinished(() => void started.close());
  await new Promise<void>((resolve) => started.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(started.address() as AddressInfo).port}`;
}

const scrapeAs = (url: string, accept: string) => ask(url, { headers: { accept } });

describe('what Accept asks for', () => {
  test.each([
    ['no header', undefined, TEXT],
    ['an empty header', '', TEXT],
    ['curl', '*/*', TEXT],
    ['a browser', 'text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8', TEXT],
    ['what there is not', 'application/json', TEXT],
    ['Prometheus 2.30', 'application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1', TEXT],
    [
      'Prometheus 2.42',
      'application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
      OPENMETRICS,
    ],
    [
      'Prometheus 2.42 with native histograms',
      'application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1',
      OPENMETRICS,
    ],
    [
      'Prometheus 3',
      'application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2',
      OPENMETRICS,
    ],
    [
      'Prometheus 3, other escaping',
      'application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2',
      OPENMETRICS,
    ],
    [
      'Prometheus 3, text first',
      'text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.2',
      TEXT,
    ],
    [
      'a quoted escaping',
      'application/openmetrics-text; version="1.0.0" ; Escaping="a;b,c" ; charset=UTF-8',
      OPENMETRICS,
    ],
    ['no version', 'Application/OpenMetrics-Text', OPENMETRICS],
    ['a version there is not', 'application/openmetrics-text;version=2.0.0', TEXT],
    ['the lower q first', 'text/plain;q=0.5, application/openmetrics-text;q=0.6', OPENMETRICS],
    ['the higher q first', 'text/plain;q=0.6, application/openmetrics-text;q=0.5', TEXT],
    ['OpenMetrics ruled out', 'application/openmetrics-text;q=0, */*', TEXT],
    ['text ruled out', 'text/plain;q=0, */*;q=0.1', OPENMETRICS],
    [
      'the specific before the general',
      'text/*;q=0.9, text/plain;version=0.0.4;q=0.1, application/*;q=0.5',
      OPENMETRICS,
    ],
    ['the same for both, named', 'text/plain, application/openmetrics-text', TEXT],
  ])('%s', async (_, accept, expected) => {
    const registry = new Registry();
    new Counter({ name: 'c', help: 'h', registers: [registry] });
    const response = await fetched(registry, accept);
    expect(response.headers.get('content-type')).toBe(expected);
    expect(response.headers.get('vary')).toBe('Accept');
    const text = await response.text();
    expect((expected === TEXT ? parseText : parseOpenMetrics)(text).samples.size).toBe(1);
  });

  test('no header breaks it', async () => {
    const registry = new Registry();
    const piece = fc.constantFrom(
      'text/plain',
      '*/*',
      'application/openmetrics-text',
      ';',
      ',',
      'q=',
      '=',
      '"',
      '\\',
      ' ',
    );
    const header = fc.array(fc.oneof(piece, fc.string({ unit: 'grapheme-ascii' })), { maxLength: 12 });
    let openMetrics = 0;
    await fc.assert(
      fc.asyncProperty(header, async (parts) => {
        const response = await fetched(registry, parts.join(''));
        expect(response.status).toBe(200);
        expect([TEXT, OPENMETRICS]).toContain(response.headers.get('content-type'));
        if (response.headers.get('content-type') === OPENMETRICS) openMetrics++;
      }),
      { numRuns: 500 },
    );
    expect(openMetrics).toBeGreaterThan(0);
  });
});

describe('every scrape', () => {
  test('obeys the conservation law under load, in both formats, many at a time', async () => {
    const db = await openTemp('data.db', { flush: { intervalMs: 1, maxWrites: 500 } });
    await db.aexecute('CREATE TABLE picky (id INTEGER PRIMARY KEY, n INTEGER CHECK (n > 0))');
    const server = await serveMetrics(db, { port: 0 });
    onTestFinished(() => server.close());
    const random = seededRandom(11);
    const scrapes: Promise<Answer>[] = [];
    for (let round = 0; round < 40; round++) {
      for (let i = 0; i < 200; i++) db.set(`key ${Math.floor(random() * 3_000)}`, i);
      if (round % 10 === 0) db.stage('INSERT INTO picky (n) VALUES (?)', [-1]);
      for (let i = 0; i < 4; i++) scrapes.push(scrapeAs(server.url, i % 2 === 0 ? TEXT : OPENMETRICS));
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    await db.aflush();
    for (const accept of [TEXT, OPENMETRICS]) scrapes.push(scrapeAs(server.url, accept));

    const seen = { [TEXT]: 0, [OPENMETRICS]: 0 };
    let midway = 0;
    let last: Scrape | undefined;
    for (const { status, headers, text } of await Promise.all(scrapes)) {
      expect(status).toBe(200);
      const type = headers['content-type'] as keyof typeof seen;
      seen[type]++;
      const found = type === OPENMETRICS ? parseOpenMetrics(text) : parseText(text);
      expect(isConserved(found)).toBe(true);
      if (sumOf(found, 'sluice_pending_writes') > 0 && sumOf(found, 'sluice_writes_applied_total') > 0) midway++;
      last = found;
    }
    expect(seen).toEqual({ [TEXT]: 81, [OPENMETRICS]: 81 });
    expect(midway, 'scrapes while some writes were applied and some were not').toBeGreaterThan(0);
    expect(last === undefined ? 0 : sumOf(last, 'sluice_writes_dead_lettered_total')).toBe(4);
  });

  test('is collected in one go, whatever metrics of the application wait for', async () => {
    const db = await openTemp();
    const { registry, close } = createMetrics(db);
    onTestFinished(close);
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    new Gauge({ name: 'slow', help: 'h', registers: [registry], collect: () => held });
    const during = [fetched(registry, TEXT), fetched(registry, OPENMETRICS)];
    await db.aset('x', 1);
    await db.aflush();
    release();
    for (const response of await Promise.all(during)) {
      const text = await response.text();
      const found = response.headers.get('content-type') === TEXT ? parseText(text) : parseOpenMetrics(text);
      expect(isConserved(found)).toBe(true);
      expect(sumOf(found, 'sluice_writes_accepted_total')).toBe(0);
    }
  });
});

describe('mounted', () => {
  const mounts: Record<string, (registry: Registry) => Promise<string>> = {
    'the plain handler in node:http': (registry) => listen(metricsHandler(registry)),
    'the plain handler in Express with app.get': (registry) => {
      const app = express();
      const handler = metricsHandler(registry);
      app.get('/metrics', handler);
      return listen(createServer(app));
    },
    'the plain handler in Express with app.use': (registry) => {
      const app = express();
      app.use('/metrics', metricsHandler(registry));
      return listen(createServer(app));
    },
    'the plain handler in Fastify': async (registry) => {
      const app = fastify();
      onTestFinished(() => app.close());
      const handler = metricsHandler(registry);
      app.get('/metrics', (request, reply) => {
        reply.hijack();
        handler(request.raw, reply.raw);
      });
      return app.listen({ port: 0, host: '127.0.0.1' });
    },
    'the fetch-style handler in Fastify': async (registry) => {
      const app = fastify();
      onTestFinished(() => app.close());
      const handler = metricsFetchHandler(registry);
      // Both, because the HEAD route that Fastify makes of a GET route cannot take a Response.
      app.route({
        method: ['GET', 'HEAD'],
        url: '/metrics',
        handler: async ({ method, headers: { accept = '' } }, reply) =>
          reply.send(await handler(new Request('http://any/metrics', { method, headers: { accept } }))),
      });
      return app.listen({ port: 0, host: '127.0.0.1' });
    },
    // What the adapters of Hono and others do.
    'the fetch-style handler behind node:http': (registry) => {
      const handler = metricsFetchHandler(registry);
      return listen(({ url = '', method = '', headers }, response) => {
        const converted = new Request(new URL(url, 'http://any'), {
          method,
          headers: headers as Record<string, string>,
        });
        void handler(converted).then(({ status, headers: sent, body }) => {
          response.writeHead(status, Object.fromEntries(sent));
          if (body === null) response.end();
          else Readable.fromWeb(body as never).pipe(response);
        });
      });
    },
  };

  test.each(Object.keys(mounts))('%s', async (name) => {
    const db = await openTemp('ünï.db');
    const { registry, close } = createMetrics(db);
    onTestFinished(close);
    const url = `${await mounts[name]?.(registry)}/metrics`;
    await db.aset('x', 1);

    for (const [accept, type] of [
      ['*/*', TEXT],
      [OPENMETRICS, OPENMETRICS],
    ] as const) {
      const got = await scrapeAs(url, accept);
      expect([got.status, got.headers['content-type'], got.headers.vary]).toEqual([200, type, 'Accept']);
      expect(Number(got.headers['content-length'])).toBe(Buffer.byteLength(got.text));
      expect(isConserved((type === TEXT ? parseText : parseOpenMetrics)(got.text))).toBe(true);

      const head = await ask(url, { method: 'HEAD', headers: { accept } });
      expect([head.status, head.text, head.headers['content-type'], head.headers.vary]).toEqual([
        200,
        '',
        type,
        'Accept',
      ]);
      // A number of another length may have come between the two.
      expect(Number(head.headers['content-length'])).toBeGreaterThan(1_000);
    }
    // Express' own 404 comes from app.get, and Fastify's; the handler's 405 where it sees every method.
    const refused = await ask(url, { method: 'POST', body: 'x' });
    if (/get|Fastify/.test(name)) expect(refused.status).toBe(404);
    else expect([refused.status, refused.headers.allow, refused.text]).toEqual([405, 'GET, HEAD', 'use GET\n']);
  });

  test('what another part of the application has set before stays, and what it has answered, too', async () => {
    const registry = new Registry();
    const handler = metricsHandler(registry);
    const varied = await listen((request, response) => {
      response.setHeader('vary', 'Origin');
      response.setHeader('x-other', 'y');
      handler(request, response);
    });
    const { headers } = await ask(varied);
    expect([headers.vary, headers['x-other']]).toEqual(['Origin, Accept', 'y']);

    const answered = await listen((request, response) => {
      handler(request, response);
      response.writeHead(503).end('too late');
    });
    expect((await ask(answered)).text).toBe('too late');
  });

  test.each(['GET', 'HEAD'])(
    '%s of a metric of the application that throws is a 500 without details, and a warning with them',
    async (method) => {
      const { registry } = createMetrics(await openTemp());
      const fail = () => {
        throw new Error(`secret of ${method}`);
      };
      new Gauge({ name: 'mine', help: 'throws', registers: [registry], collect: fail });
      const warned = vi.fn();
      process.on('warning', warned);
      onTestFinished(() => void process.off('warning', warned));
      const url = await listen(metricsHandler(registry));
      const text = 'metrics could not be collected\n';
      const plain = await ask(`${url}/anywhere`, { method });
      expect([plain.status, plain.text]).toEqual([500, method === 'HEAD' ? '' : text]);
      const response = await metricsFetchHandler(registry)(new Request('http://any/', { method }));
      expect([response.status, await response.text()]).toEqual([500, plain.text]);
      for (const headers of [plain.headers, Object.fromEntries(response.headers)]) {
        expect([headers['content-type'], headers['content-length']]).toEqual([
          'text/plain; charset=utf-8',
          `${text.length}`,
        ]);
      }
      await vi.waitFor(() => expect(warned.mock.calls).toHaveLength(2), 5_000);
      for (const [warning] of warned.mock.calls) {
        expect(warning).toMatchObject({
          name: 'SluiceWarning',
          message: expect.stringContaining(`secret of ${method}`),
        });
      }
    },
  );

  test('the fetch-style handler answers other methods with 405', async () => {
    const handler = metricsFetchHandler(new Registry());
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']) {
      const { status, headers } = await handler(new Request('http://any/', { method }));
      expect([status, headers.get('allow')]).toEqual([405, 'GET, HEAD']);
    }
  });
});

describe('serveMetrics', () => {
  test('answers GET and HEAD at /metrics, 404 elsewhere and 405 to other methods', async () => {
    const db = await openTemp();
    const server = await serveMetrics(db, { port: 0 });
    onTestFinished(() => server.close());
    expect(server.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
    await db.aset('x', 1);

    const got = await ask(server.url);
    expect([got.status, got.headers['content-type']]).toEqual([200, TEXT]);
    expect(sumOf(parseText(got.text), 'sluice_writes_accepted_total')).toBe(1);
    expect((await scrapeAs(`${server.url}?name=x`, OPENMETRICS)).headers['content-type']).toBe(OPENMETRICS);
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      const refused = await ask(server.url, { method });
      expect([refused.status, refused.headers.allow]).toEqual([405, 'GET, HEAD']);
    }
    for (const path of ['', '/', '/metrics/', '//', '/other?x=/metrics']) {
      const url = server.url.replace('/metrics', path);
      const lost = await ask(url);
      expect([lost.status, lost.text], path).toEqual([404, 'the metrics are at /metrics\n']);
      const head = await ask(url, { method: 'HEAD' });
      expect([head.status, head.text, head.headers['content-length']]).toEqual([404, '', `${lost.text.length}`]);
    }
  });

  test('answers many requests of one connection', async () => {
    const server = await serveMetrics(await openTemp(), { port: 0 });
    onTestFinished(() => server.close());
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    onTestFinished(() => agent.destroy());
    const sockets = new Set<Socket>();
    const statuses: unknown[] = [];
    for (const [path, method] of [
      ['/metrics', 'GET'],
      ['/metrics', 'HEAD'],
      ['/', 'HEAD'],
      ['/metrics', 'POST'],
      ['/metrics', 'GET'],
    ]) {
      const sent = request(new URL(path ?? '', server.url), { agent, method });
      sent.on('socket', (socket) => sockets.add(socket));
      await new Promise<void>((resolve, reject) => {
        sent.on('error', reject).on('response', (response) => {
          statuses.push(response.statusCode);
          response.resume().on('end', resolve);
        });
        sent.end(method === 'POST' ? 'a body that nobody reads' : undefined);
      });
    }
    expect(statuses).toEqual([200, 200, 404, 405, 200]);
    expect(sockets.size).toBe(1);
  });

  test('serves several databases that share its registry', async () => {
    const [orders, audit] = [await openTemp('orders.db'), await openTemp('audit.db')];
    const metrics = createMetrics(audit);
    const server = await serveMetrics(orders, { port: 0, registry: metrics.registry });
    await audit.aset('x', 1);
    const { samples } = parseText((await ask(server.url)).text);
    const labels = new Set([...samples.keys()].map((id) => /"db","([^"]*)"/.exec(id)?.[1]));
    expect(labels).toEqual(new Set(['orders.db', 'audit.db']));
    await server.close();
    expect(parseText(await metrics.registry.metrics()).samples.size).toBe(samples.size / 2);
    metrics.close();
  });

  test('a closed server is gone, with its series, and can be started again', async () => {
    const db = await openTemp();
    const registry = new Registry();
    const seriesOf = async (label: string) =>
      [...parseText(await registry.metrics()).samples.keys()].filter((id) => id.includes(`["db","${label}"]`)).length;
    const server = await serveMetrics(db, { port: 0, registry });
    const port = Number(new URL(server.url).port);
    await expect(serveMetrics(db, { port, db: 'other', registry })).rejects.toMatchObject({
      code: 'SLUICE_INVALID_OPTION',
      message: expect.stringContaining('EADDRINUSE'),
      cause: { code: 'EADDRINUSE' },
    });
    expect(await seriesOf('other')).toBe(0);
    expect(await seriesOf('data.db')).toBeGreaterThan(0);
    await server.close();
    await server.close();
    expect(await seriesOf('data.db')).toBe(0);
    await expect(ask(server.url)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    const again = await serveMetrics(db, { port, registry });
    expect((await ask(again.url)).status).toBe(200);
    await again.close();
    expect(db.state).toBe('ok');
  });

  test('a client that never finishes its request does not hold up close', async () => {
    const db = await openTemp();
    const server = await serveMetrics(db, { port: 0 });
    const client = connect(Number(new URL(server.url).port), '127.0.0.1');
    const gone = new Promise<void>((resolve) => client.on('error', () => {}).on('close', () => resolve()));
    await new Promise<void>((resolve) => client.write('GET /metrics HTTP/1.1\r\n', () => resolve()));
    expect((await ask(server.url)).status).toBe(200);
    await server.close();
    await gone;
    await expect(ask(server.url)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  }, 20_000);

  test('its options are checked together', async () => {
    const db = await openTemp();
    const wrong = { port: 70_000, host: '', prot: 1 };
    await expect(serveMetrics(db, wrong as never)).rejects.toMatchObject({
      code: 'SLUICE_INVALID_OPTION',
      problems: { length: 3 },
    });
  });
});
