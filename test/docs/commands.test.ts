import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import Sqlite from 'better-sqlite3';
import { open } from 'sluicedb';
import { describe, expect, test } from 'vitest';
import { serve } from '../support/cli.ts';
import { blocksIn, type CodeBlock, nameOf, PAGES, ROOT } from '../support/code-blocks.ts';
import { startExample } from '../support/example.ts';
import { tempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);

const blocks = PAGES.flatMap(blocksIn);
const shell = blocks.filter(({ language }) => ['sh', 'bash', 'shell'].includes(language));
const keyOf = ({ page, code }: CodeBlock): string => `${page}: ${code.split('\n', 1)[0]?.replace(/ *#.*/, '')}`;

/** What a block needs around it, and what is seen of it afterwards. */
interface Around {
  /** Makes what it works on; returns where the collector is, if it needs one. */
  readonly prepare?: (folder: string) => Promise<string | undefined>;
  readonly check?: (output: string, folder: string) => void;
}

/** Makes a database with 20 dead letters of the table `readings`, whose cause is repaired. */
async function deadLetters(file: string): Promise<void> {
  const db = await open(file);
  db.on('dead-letter', () => {});
  await db.aexecute('CREATE TABLE readings (room TEXT, celsius REAL CHECK (celsius > -273))');
  const readings = db.rows('readings');
  for (let i = 0; i < 20; i++) readings.append({ room: 'kitchen', celsius: -300 - i });
  await db.aflush();
  await db.aexecute('DROP TABLE readings');
  await db.aexecute('CREATE TABLE readings (room TEXT, celsius REAL)');
  await db.close();
}

async function collector(folder: string, { dead = false }: { dead?: boolean } = {}): Promise<string> {
  const file = join(folder, 'served.db');
  if (dead) await deadLetters(file);
  return (await serve([file, '--no-source'])).url;
}

const withDeadLetters = (folder: string) => collector(folder, { dead: true });

async function withFile(folder: string): Promise<undefined> {
  const db = await open(join(folder, 'telemetry.db'));
  db.set('room/kitchen', { celsius: 21.5 });
  await db.close();
}

/** What can be run, on a database of its own. */
const RUN: Readonly<Record<string, Around>> = {
  'README.md: curl -s http://127.0.0.1:9464/metrics | grep sluice_writes_applied_total': {
    prepare: (folder) => collector(folder),
    check: (output) => {
      expect(output).toContain('sluice_writes_applied_total{');
      expect(output).toContain('"accepted":1');
      expect(output).toContain('"n":1');
    },
  },
  'README.md: npx sluice inspect telemetry.db': {
    prepare: withFile,
    check: (output) => {
      expect(output).toContain('watermark     write 1');
      expect(output).toContain('telemetry.db: sound');
    },
  },
  'docs/inspecting.md: sluice inspect telemetry.db': {
    prepare: withFile,
    check: (output) => expect(output).toContain('watermark     write 1'),
  },
  'docs/backups.md: sluice backup telemetry.db backup.db': {
    prepare: withFile,
    check: (output) => {
      expect(output).toContain('everything up to write 1');
      expect(output).toContain('epoch 2');
    },
  },
  'docs/collector.md: curl -s -H \'Content-Type: application/json\' -d \'{"filter":{"table":"readings"},"ratePerSecond":500}\' http://127.0.0.1:9464/dlq/retry':
    {
      prepare: withDeadLetters,
      check: (output) => expect(JSON.parse(output)).toEqual({ applied: 20, failed: 0, superseded: 0, missing: 0 }),
    },
  'docs/collector.md: sluice ingest --db telemetry.db machine.csv events.ndjson': {
    prepare: (folder) => {
      writeFileSync(join(folder, 'machine.csv'), 'name,load\na,1\nb,2\n');
      writeFileSync(join(folder, 'events.ndjson'), '{"name":"start"}\n');
      return collector(folder);
    },
    check: (_, folder) => {
      for (const [file, table, count] of [
        ['telemetry.db', 'machine', 2],
        ['telemetry.db', 'events', 1],
      ] as const) {
        const db = new Sqlite(join(folder, file), { readonly: true });
        expect(db.prepare(`SELECT count(*) FROM ${table}`).pluck().get()).toBe(count);
        db.close();
      }
    },
  },
  'docs/collector.md: sluice dlq summary telemetry.db': {
    prepare: async (folder) => {
      await deadLetters(join(folder, 'telemetry.db'));
      return withDeadLetters(folder);
    },
    check: (output, folder) => {
      expect(output).toContain('SQLITE_CONSTRAINT_CHECK');
      const db = new Sqlite(join(folder, 'telemetry.db'), { readonly: true });
      expect(db.prepare('SELECT count(*) FROM _sluice_dead_letters').pluck().get()).toBe(18);
      db.close();
    },
  },
  'docs/dead-letters.md: sluice dlq summary --url http://127.0.0.1:9464': {
    prepare: withDeadLetters,
    check: (output) => expect(output).toContain('SQLITE_CONSTRAINT_CHECK'),
  },
  'docs/dead-letters.md: sluice dlq list --url http://127.0.0.1:9464 --table readings --limit 5': {
    prepare: withDeadLetters,
    check: (output) => expect(output).toContain('-316'),
  },
  'docs/dead-letters.md: sluice dlq retry --url http://127.0.0.1:9464 --table readings --rate 500': {
    prepare: withDeadLetters,
    check: (output) => expect(output).toMatch(/\b20 applied|applied\D+20\b/),
  },
  'examples/README.md: curl -s -H \'Content-Type: application/json\' -d \'[{"room":"kitchen","celsius":21.5}]\' http://127.0.0.1:3000/readings':
    {
      prepare: async (folder) => (await startExample('express', { FILE: join(folder, 'telemetry.db') })).url,
      check: (output) => expect(output).toMatch(/^\{"accepted":1\}\{.*21\.5.*\}\[\{.*21\.5.*\}\]$/),
    },
};

/** What cannot, and what holds it instead. */
const NOT_RUN: Readonly<Record<string, string>> = {
  'README.md: npm ci && npm start': 'it installs; test/integration/cli-serve.test.ts starts what npm start starts',
  'README.md: npm install sluicedb': 'it installs; test/package/package.test.ts looks at what would be installed',
  'README.md: openssl rand -hex 24 > monitoring/token && docker compose -f monitoring/docker-compose.yml up --build':
    'it needs a container engine; test/monitoring/compose.test.ts runs what the containers run',
  'README.md: npm run bench':
    'it measures for many minutes; test/unit/bench.test.ts checks its arithmetic, test/docs/bench.test.ts what is made of its results',
  'bench/README.md: npm run bench': 'the same',
  'bench/README.md: npm run bench -- --case unique rows-3': 'the same, for a minute',
  'bench/README.md: npm run bench:full -- --json "bench/results/$(date -I).jsonl"': 'it writes what is published',
  'CONTRIBUTING.md: npm ci': 'the tests of this very repository',
  'examples/README.md: FILE=telemetry.db PORT=3000 node examples/express/server.mjs':
    'it never ends; test/examples/servers.test.ts runs both examples',
  'docs/collector.md: sluice serve [FILE]': 'a synopsis; test/integration/cli-serve.test.ts asks each for its --help',
  'docs/operating.md: npm start': 'it never ends; test/monitoring/prometheus.test.ts runs both, with these files',
  'docs/operating.md: openssl rand -hex 24 > monitoring/token':
    'it needs a container engine; test/monitoring/compose.test.ts runs what the containers run',
  'monitoring/README.md: npm run dashboard':
    'it writes into the repository; test/monitoring/dashboard.test.ts runs the script',
};

describe('a block of commands', () => {
  test('is run, or there is a reason why not', () => {
    const known = [...Object.keys(RUN), ...Object.keys(NOT_RUN)];
    expect(shell.map(keyOf).sort()).toEqual(known.sort());
  });

  test('names only npm scripts that there are', () => {
    const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: object };
    const named = shell.flatMap(({ code }) => [...code.matchAll(/\bnpm run ([\w:-]+)/g)].map(([, name = '']) => name));
    expect(named.length).toBeGreaterThan(3);
    expect(named.filter((name) => !Object.hasOwn(scripts, name))).toEqual([]);
  });

  const runnable = shell.filter((block) => Object.hasOwn(RUN, keyOf(block)));

  test.each(runnable.map((block) => [nameOf(block), block] as const))(
    '%s works when it is pasted',
    async (_, block) => {
      const { prepare, check } = RUN[keyOf(block)] ?? {};
      const folder = tempDir();
      const bin = join(folder, 'node_modules', '.bin');
      mkdirSync(bin, { recursive: true });
      // npm would make a link of it, and the file executable.
      const main = join(ROOT, 'dist', 'cli', 'main.js');
      writeFileSync(join(bin, 'sluice'), `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`, { mode: 0o755 });
      const url = await prepare?.(folder);
      const code = block.code
        .replaceAll(/http:\/\/(127\.0\.0\.1|collector):(9464|3000)/g, url ?? '$&')
        .replaceAll('SLUICE_TOKEN=…', 'SLUICE_TOKEN=');
      const { stdout } = await run('bash', ['-e', '-o', 'pipefail', '-c', code], {
        cwd: folder,
        timeout: 30_000,
        env: { ...process.env, PATH: `${bin}:${process.env['PATH']}`, SLUICE_TOKEN: '' },
      });
      check?.(stdout, folder);
    },
  );
});

/** Blocks that nothing runs: each is parsed, or there is a reason why not. */
const PARSED: Readonly<Record<string, (code: string) => unknown>> = { json: (code) => JSON.parse(code) };

const NOT_PARSED: Readonly<Record<string, string>> = {
  'docs/inspecting.md: database      /srv/telemetry.db': 'what a command prints; test/integration/cli-inspect.test.ts',
  'docs/metrics.md: writes_accepted + writes_recovered = writes_applied + writes_coalesced + writes_dead_lettered + pending_writes':
    'two sums; test/integration/metrics.test.ts adds them up',
  'docs/operating.md: sum without (op) (sluice_writes_accepted_total) + sluice_writes_recovered_total - sluice_writes_applied_total':
    'a query; test/docs/operating.test.ts knows its metrics',
};

test('every other block is parsed, or there is a reason why not', () => {
  const others = blocks.filter(({ language }) => !['js', 'ts', 'sh', 'bash', 'shell'].includes(language));
  const parsed = others.filter(({ language }) => Object.hasOwn(PARSED, language));
  for (const { language, code } of parsed) expect(() => PARSED[language]?.(code)).not.toThrow();
  const left = others.filter((block) => !parsed.includes(block)).map(keyOf);
  expect(left.sort()).toEqual(Object.keys(NOT_PARSED).sort());
});
