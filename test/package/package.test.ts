import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const LIMIT = { timeout: 100_000, maxBuffer: 16 * 1024 * 1024 };

// Compilers and npm, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

interface Manifest {
  readonly version: string;
  readonly exports: Readonly<Record<string, string | { readonly types: string; readonly default: string }>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
}

/** A project that has what npm packs installed, and beside it what that says it depends on, and nothing else. */
const project = mkdtempSync(join(tmpdir(), 'sluice-package-'));
const installed = join(project, 'node_modules', 'sluicedb');
let tarball: string;
let files: readonly string[];
let manifest: Manifest;

function link(name: string): void {
  const path = join(project, 'node_modules', name);
  mkdirSync(dirname(path), { recursive: true });
  symlinkSync(join(root, 'node_modules', name), path);
}

beforeAll(async () => {
  mkdirSync(installed, { recursive: true });
  const packing = ['pack', '--json', '--ignore-scripts', '--offline', '--pack-destination', project];
  const [{ filename }] = JSON.parse((await run('npm', packing, { ...LIMIT, cwd: root })).stdout) as [
    { filename: string },
  ];
  tarball = join(project, filename);
  await run('tar', ['-xzf', tarball, '-C', installed, '--strip-components=1'], LIMIT);
  files = readdirSync(installed, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(installed.length + 1));
  manifest = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as Manifest;
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })) link(name);
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'project', private: true }));
});

afterAll(() => rmSync(project, { recursive: true, force: true }));

const textOf = (file: string): string => readFileSync(join(installed, file), 'utf8');

/** Runs a program in the project; what Node.js warns of is in what it returns. */
async function runInstalled(file: string, program: string): Promise<string> {
  writeFileSync(join(project, file), program);
  const { stdout, stderr } = await run(process.execPath, [join(project, file)], LIMIT);
  return (stdout + stderr).trim();
}

const bin = (name: string, ...args: string[]) => run(join(root, 'node_modules', '.bin', name), args, LIMIT);

const PROGRAM = `
  (async () => {
    const { join } = await import('node:path');
    const { mkdtemp, rm } = await import('node:fs/promises');
    const folder = await mkdtemp(join((await import('node:os')).tmpdir(), 'sluice-test-'));
    const db = await open(join(folder, 'a.db'));
    db.set('a', { n: 1 });
    db.rows('events', { columns: { at: 'integer' } }).append({ at: 2 });
    const kysely = new Kysely({ dialect: new SluiceDialect({ database: db }) });
    const rows = await kysely.selectFrom('events').selectAll().execute();
    const metrics = createMetrics(db);
    const text = await metrics.registry.metrics();
    metrics.close();
    await db.close();
    const again = await open(join(folder, 'a.db'));
    console.log(JSON.stringify([again.get('a'), rows, /sluice_writes_applied_total.* [1-9]/.test(text)]));
    await again.close();
    await rm(folder, { recursive: true });
    console.log(typeof SluiceError, typeof startCollector, ERROR_CODES.length > 10);
  })();`;

const PRINTS = '[{"n":1},[{"at":2}],true]\nfunction function true';

const NAMES = {
  sluicedb: '{ open, SluiceError, ERROR_CODES }',
  'sluicedb/kysely': '{ SluiceDialect }',
  'sluicedb/metrics': '{ createMetrics }',
  'sluicedb/server': '{ startCollector }',
  kysely: '{ Kysely }',
};

test('every entry is known here', () => {
  const entries = Object.keys(manifest.exports).map((path) => path.replace('.', 'sluicedb'));
  expect(entries).toEqual([...Object.keys(NAMES).slice(0, -1), 'sluicedb/package.json']);
});

test('what is packed can be imported, and works', async () => {
  const imports = Object.entries(NAMES).map(([from, names]) => `import ${names} from '${from}';`);
  expect(await runInstalled('a.mjs', imports.join('\n') + PROGRAM)).toBe(PRINTS);
});

test('it can be required, and works', async () => {
  const requires = Object.entries(NAMES).map(([from, names]) => `const ${names} = require('${from}');`);
  const printed = await runInstalled('a.cjs', requires.join('\n') + PROGRAM);
  // Kysely has a build of its own for this. Older releases of Node.js 20 warn of it.
  expect(printed.split('\n(node:')[0]).toBe(PRINTS);
});

test('nothing else can be imported from it', async () => {
  const program = `import('sluicedb/dist/index.js').catch(({ code }) => console.log(code));`;
  expect(await runInstalled('b.mjs', program)).toBe('ERR_PACKAGE_PATH_NOT_EXPORTED');
});

test('the command sluice is there, and says its version', async () => {
  const { bin: commands } = JSON.parse(textOf('package.json')) as { readonly bin: Readonly<Record<string, string>> };
  expect(Object.keys(commands)).toEqual(['sluice']);
  const main = commands['sluice'] ?? '';
  expect(textOf(main)).toMatch(/^#!\/usr\/bin\/env node\n/);
  const { stdout } = await run(process.execPath, [join(installed, main), '--version'], LIMIT);
  expect(stdout.trim()).toBe(manifest.version);
});

test('the root loads neither HTTP nor prom-client, nor what only the command line needs', async () => {
  const loaded = await runInstalled(
    'c.mjs',
    `import { createRequire, register } from 'node:module';
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
     console.log(JSON.stringify([...seen, ...cached]));`,
  );
  const specifiers = JSON.parse(loaded) as string[];
  expect(specifiers).toContain('better-sqlite3');
  expect(specifiers.some((specifier) => specifier.endsWith('/engine.js'))).toBe(true);
  const heavy =
    /^(node:)?(http|https|http2|net|cluster)$|prom-client|find-my-way|commander|cli-progress|csv-parse|kysely/;
  expect(specifiers.filter((specifier) => heavy.test(specifier))).toEqual([]);
});

test('what npm packs is the build, its types, the papers, rules and dashboard, and nothing else', () => {
  const known = [
    /^dist\/.*\.(js|d\.ts|js\.map)$/,
    /^(package\.json|LICENSE|[A-Z]+\.md|docs\/[\w-]+\.md)$/,
    /^monitoring\/(README\.md|prometheus\/rules\/\w+\.yml|grafana\/dashboards\/\w+\.json)$/,
  ];
  expect(files.filter((name) => !known.some((pattern) => pattern.test(name)))).toEqual([]);
  expect(files).toEqual(
    expect.arrayContaining([
      ...Object.values(manifest.exports).flatMap((entry) =>
        (typeof entry === 'string' ? [entry] : [entry.types, entry.default]).map((path) => path.slice(2)),
      ),
      'dist/store/sqlite/writer/writer-thread.js',
      'dist/store/sqlite/reader/reader-thread.js',
      'README.md',
      'CHANGELOG.md',
      'SECURITY.md',
      'LICENSE',
      'docs/guide.md',
      // The alerts name it as their runbook.
      'docs/operating.md',
      'monitoring/prometheus/rules/alerts.yml',
      'monitoring/prometheus/rules/recording.yml',
      'monitoring/grafana/dashboards/sluice.json',
    ]),
  );
});

test('no file of the build names one that is not packed', () => {
  const there = new Set(files);
  const sources = files.filter((name) => /\.(js|d\.ts)$/.test(name));
  const missing: string[] = [];
  let imports = 0;
  for (const name of sources) {
    const near = (target: string) => posix.join(posix.dirname(name), target);
    for (const [, target = ''] of textOf(name).matchAll(
      /(?:from |import\(|^import |new URL\()["'](\.{1,2}\/[^"']*)["']/gm,
    )) {
      imports++;
      // In types, './a.ts' is what './a.d.ts' says.
      const path = near(target).replace(/(?<!\.d)\.ts$/, '.d.ts');
      if (!there.has(path)) missing.push(`${name}: ${target}`);
    }
    const map = /^\/\/# sourceMappingURL=(.*)$/m.exec(textOf(name))?.[1];
    if (map === undefined) continue;
    if (!there.has(near(map))) missing.push(`${name}: ${map}`);
    const { sources, sourcesContent } = JSON.parse(textOf(near(map))) as Record<'sources' | 'sourcesContent', string[]>;
    if (sourcesContent?.length !== sources.length) missing.push(`${map}: ${sources}`);
  }
  expect(imports).toBeGreaterThan(1_000);
  expect(missing).toEqual([]);
});

test('no file of the build imports a package that is not declared', () => {
  const declared = new Set([
    ...Object.keys(manifest.dependencies),
    ...Object.keys(manifest.peerDependencies),
    // Whoever compiles for Node.js has its types.
    'node',
  ]);
  const strangers = files
    .filter((name) => /\.(js|d\.ts)$/.test(name))
    .flatMap((name) =>
      [...textOf(name).matchAll(/(?:^(?:import|export|\}) [^'\n]*from |^import |\bimport\()["']([^"'.][^"']*)["']/gm)]
        .map(([, specifier = '']) => specifier)
        .filter((specifier) => !declared.has(specifier.replace(/^node:.*/, 'node').split('/')[0] ?? ''))
        .map((specifier) => `${name}: ${specifier}`),
    );
  expect(strangers).toEqual([]);
});

test('publint --strict has nothing to say', async () => {
  const { stdout } = await bin('publint', '--strict', tarball);
  expect(stdout).toContain('All good!');
});

test('attw finds the types of every entry, for ES modules', async () => {
  const { stdout } = await bin('attw', tarball, '--profile', 'esm-only', '--format', 'json');
  const { analysis } = JSON.parse(stdout) as { analysis: { entrypoints: object; problems: { kind: string }[] } };
  expect(Object.keys(analysis.entrypoints)).toEqual(Object.keys(manifest.exports));
  // For those who require it and know only the resolution of before Node.js 20.19, which the profile leaves out.
  expect([...new Set(analysis.problems.map(({ kind }) => kind))].sort()).toEqual(['CJSResolvesToESM', 'NoResolution']);
});

const CONSUMER = `
import { type Database, open, type Table } from 'sluicedb';
import { createMetrics, type Metrics } from 'sluicedb/metrics';
import { type Collector, startCollector } from 'sluicedb/server';

export async function use(): Promise<number | undefined> {
  const db: Database<number> = await open<number>(':memory:');
  const table: Table<{ n: number }> = db.table<{ n: number }>('a');
  table.set('a', { n: 1 });
  const metrics: Metrics = createMetrics(db);
  metrics.close();
  const collector: Collector = await startCollector({ file: 'a.db' });
  await collector.close();
  // @ts-expect-error These are numbers.
  db.set('a', 'b');
  return db.get('a');
}
`;

const WITH_KYSELY = `
import { Kysely } from 'kysely';
import { open } from 'sluicedb';
import { SluiceDialect } from 'sluicedb/kysely';

export async function keys(): Promise<{ key: string }[]> {
  const database = await open(':memory:');
  const kysely = new Kysely<{ a: { key: string } }>({ dialect: new SluiceDialect({ database }) });
  return kysely.selectFrom('a').select('key').execute();
}
`;

test.each([
  // Kysely has types of its own for require, which are not those that an ES module has.
  ['nodenext', { 'index.mts': CONSUMER, 'index.cts': CONSUMER, 'kysely.mts': WITH_KYSELY }],
  ['bundler', { 'index.ts': CONSUMER, 'kysely.ts': WITH_KYSELY }],
])(
  'TypeScript compiles against its types, all of them checked, with moduleResolution %s',
  async (resolution, sources) => {
    const folder = join(project, resolution);
    mkdirSync(folder);
    for (const [name, text] of Object.entries(sources)) writeFileSync(join(folder, name), text);
    const compilerOptions = {
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
      noEmit: true,
      target: 'es2023',
      lib: ['es2023', 'esnext.disposable'],
      types: ['node'],
      typeRoots: [join(root, 'node_modules', '@types')],
      module: resolution === 'bundler' ? 'preserve' : resolution,
      moduleResolution: resolution,
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: Object.keys(sources) }));
    const { stdout } = await bin('tsc', '-p', folder).catch((failed: { stdout: string }) => failed);
    expect(stdout).toBe('');
  },
);

test('the reference is made of comments that say what they must, without a warning', async () => {
  const { stdout } = await run(join(root, 'node_modules', '.bin', 'typedoc'), ['--emit', 'none'], {
    ...LIMIT,
    cwd: root,
  });
  expect(stdout).not.toMatch(/warning|error/i);
});
