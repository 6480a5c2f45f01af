import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { tempDir } from '../support/temp-dir.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const LIMIT = { timeout: 60_000 };

interface Manifest {
  readonly exports: Readonly<Record<string, string | { readonly types: string; readonly default: string }>>;
  readonly files: readonly string[];
  readonly bin: Readonly<Record<string, string>>;
}

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest;

/** Runs a program in a folder where the package is installed. */
async function runInstalled(file: string, program: string): Promise<string> {
  const folder = tempDir();
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(root, join(folder, 'node_modules', 'sluicedb'));
  writeFileSync(join(folder, file), program);
  return (await run(process.execPath, [join(folder, file)], LIMIT)).stdout.trim();
}

const PROGRAM = `
  (async () => {
    const db = await open(':memory:');
    db.set('a', 1);
    await db.aflush();
    console.log(await db.aget('a'), typeof SluiceError, typeof closeOnSignals, ERROR_CODES.length > 10);
    await db.close();
  })();`;

test('the root can be imported, and required', async () => {
  const names = '{ open, SluiceError, closeOnSignals, ERROR_CODES }';
  expect(await runInstalled('a.mjs', `import ${names} from 'sluicedb';${PROGRAM}`)).toBe('1 function function true');
  expect(await runInstalled('a.cjs', `const ${names} = require('sluicedb');${PROGRAM}`)).toBe(
    '1 function function true',
  );
});

test('the root loads neither HTTP nor prom-client, nor what only the command line needs', async () => {
  const loaded = await runInstalled(
    'a.mjs',
    `import { createRequire, registerHooks } from 'node:module';
     import { register } from 'node:module';
     const seen = [];
     const port = new (await import('node:worker_threads')).MessageChannel();
     port.port1.on('message', (specifier) => seen.push(specifier));
     port.port1.unref();
     const hooks = \`let port;
       export function initialize(data) { port = data.port; }
       export async function resolve(specifier, context, next) { port.postMessage(specifier); return next(specifier, context); }\`;
     register('data:text/javascript,' + encodeURIComponent(hooks), { data: { port: port.port2 }, transferList: [port.port2] });
     const { open } = await import('sluicedb');
     const db = await open(':memory:');
     await db.aset('a', 1);
     await db.close();
     await new Promise((resolve) => setTimeout(resolve, 50));
     const cached = Object.keys(createRequire(import.meta.url).cache);
     console.log(JSON.stringify([...seen, ...cached]));`.replace('createRequire, registerHooks', 'createRequire'),
  );
  const specifiers = JSON.parse(loaded) as string[];
  expect(specifiers).toContain('better-sqlite3');
  expect(specifiers.some((specifier) => specifier.endsWith('/engine.js'))).toBe(true);
  const heavy = /^(node:)?(http|https|http2|net|cluster)$|prom-client|find-my-way|commander|cli-progress|csv-parse/;
  expect(specifiers.filter((specifier) => heavy.test(specifier))).toEqual([]);
});

test('what npm packs is the build, its types, the papers, rules and dashboard, and nothing else', async () => {
  const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { ...LIMIT, cwd: root });
  const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }];
  const names = files.map(({ path }) => path);
  const known = [
    /^dist\/.*\.(js|d\.ts|js\.map)$/,
    /^(package\.json|LICENSE|[A-Z]+\.md|docs\/[\w-]+\.md)$/,
    /^monitoring\/(README\.md|prometheus\/rules\/\w+\.yml|grafana\/dashboards\/\w+\.json)$/,
  ];
  const strangers = names.filter((name) => !known.some((pattern) => pattern.test(name)));
  expect(strangers).toEqual([]);
  for (const needed of [
    'dist/index.js',
    'dist/index.d.ts',
    'dist/store/sqlite/writer/writer-thread.js',
    'dist/store/sqlite/reader/reader-thread.js',
    'package.json',
    'LICENSE',
    // The alerts name it as their runbook.
    'docs/operating.md',
    'monitoring/prometheus/rules/alerts.yml',
    'monitoring/prometheus/rules/recording.yml',
    'monitoring/grafana/dashboards/sluice.json',
  ]) {
    expect(names).toContain(needed);
  }
});

test('every entry that is built has its types beside it', () => {
  const built = Object.values(manifest.exports).filter(
    (entry) => typeof entry !== 'string' && existsSync(join(root, entry.default)),
  );
  expect(built.length).toBeGreaterThan(0);
  for (const entry of built) {
    if (typeof entry !== 'string') expect(existsSync(join(root, entry.types)), entry.types).toBe(true);
  }
});
