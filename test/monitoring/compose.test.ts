import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, normalize, relative } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { listening, sluice, start } from '../support/cli.ts';
import { ask } from '../support/http.ts';
import { MONITORING } from '../support/rules.ts';
import { tempDir } from '../support/temp-dir.ts';

// There is no container engine here: what the files say is held against each other, and what the image runs is run as it is.

const run = promisify(execFile);
const ROOT = join(MONITORING, '..');
const yaml = (...path: string[]): unknown => parse(readFileSync(join(MONITORING, ...path), 'utf8'));

interface Service {
  readonly image?: string;
  readonly build?: { readonly context: string; readonly dockerfile: string };
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly secrets: readonly (string | { readonly source: string; readonly target: string })[];
  readonly volumes: readonly string[];
  readonly ports: readonly string[];
  readonly depends_on?: readonly string[];
}

const compose = yaml('docker-compose.yml') as {
  readonly services: Readonly<Record<'collector' | 'prometheus' | 'grafana', Service>>;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
  readonly volumes: Readonly<Record<string, unknown>>;
};
const { collector, prometheus, grafana } = compose.services;
const services = Object.entries(compose.services) as [string, Service][];

/** What of this folder is where in a container: by the path there, the path here. */
function mounted({ volumes }: Service): Map<string, string> {
  const binds = volumes.map((volume) => volume.split(':')).filter(([from]) => from?.startsWith('.'));
  return new Map(binds.map(([from = '', to = '']) => [to, join(MONITORING, from)]));
}

/** Where secrets are in a container. */
const secretsIn = ({ secrets }: Service): string[] =>
  secrets.map((secret) => (typeof secret === 'string' ? `/run/secrets/${secret}` : secret.target));

/** The path here of a path in a container. */
function pathHere(service: Service, path: string): string | undefined {
  for (const [to, from] of mounted(service)) {
    if (path === to || path.startsWith(`${to}/`)) return join(from, path.slice(to.length));
  }
  return undefined;
}

const dockerfile = readFileSync(join(MONITORING, 'Dockerfile'), 'utf8');

test('everything that is mounted is there, read-only, and every volume, secret and service that is spoken of is declared', () => {
  let binds = 0;
  for (const [name, service] of services) {
    for (const [to, from] of mounted(service)) {
      binds++;
      expect(existsSync(from), `${name}: ${from}`).toBe(true);
      expect(service.volumes, name).toContain(`./${relative(MONITORING, from)}:${to}:ro`);
    }
    for (const volume of service.volumes.filter((text) => !text.startsWith('.'))) {
      expect(compose.volumes, name).toHaveProperty(volume.split(':')[0] ?? '');
    }
    for (const secret of service.secrets) {
      expect(compose.secrets, name).toHaveProperty(typeof secret === 'string' ? secret : secret.source);
    }
    for (const other of service.depends_on ?? []) expect(compose.services).toHaveProperty(other);
  }
  expect(binds).toBeGreaterThanOrEqual(5);
});

test('images have a version, and nothing listens but on this machine', () => {
  const images = services.flatMap(([, { image }]) => image ?? []);
  const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, image = '']) => image);
  expect([images.length, bases.length]).toEqual([2, 2]);
  for (const image of [...images, ...bases]) expect(image).toMatch(/:v?\d+\.\d+/);
  for (const [name, { ports }] of services)
    for (const port of ports) expect(port, name).toMatch(/^127\.0\.0\.1:(\d+):\1$/);
});

test('the token is a secret that neither git nor the image gets to see', () => {
  const files = [
    ...Object.values(compose.secrets).map(({ file }) => join('monitoring', file)),
    'monitoring/prometheus/token',
  ];
  for (const list of ['.gitignore', '.dockerignore']) {
    const ignored = readFileSync(join(ROOT, list), 'utf8').split('\n');
    for (const file of files) expect(ignored, list).toContain(normalize(file));
  }
  let secret = 0;
  for (const service of [collector, grafana]) {
    for (const [name, value] of Object.entries(service.environment ?? {})) {
      if (!/TOKEN|PASSWORD/.test(name)) continue;
      secret++;
      expect(secretsIn(service), name).toContain(value);
    }
  }
  expect(secret).toBe(2);
});

test('Prometheus finds its rules, its token and the collector', async () => {
  const config = prometheus.command?.find((flag) => flag.startsWith('--config.file='))?.split('=')[1] ?? '';
  const read = parse(readFileSync(pathHere(prometheus, config) ?? '', 'utf8')) as {
    rule_files: string[];
    scrape_configs: { authorization?: { credentials_file: string }; file_sd_configs: { files: string[] }[] }[];
  };
  const inFolder = (name: string) => join(dirname(config), name);
  for (const rules of read.rule_files)
    expect(existsSync(pathHere(prometheus, inFolder(dirname(rules))) ?? '')).toBe(true);

  const lists = read.scrape_configs.flatMap(({ authorization, file_sd_configs }) =>
    file_sd_configs.flatMap(({ files }) => files.map((file) => ({ authorization, file }))),
  );
  const there = lists.filter(({ file }) => pathHere(prometheus, inFolder(file)) !== undefined);
  expect(there).toHaveLength(1);
  for (const { authorization, file } of there) {
    expect(secretsIn(prometheus)).toContain(inFolder(authorization?.credentials_file ?? ''));
    const [{ targets }] = parse(readFileSync(pathHere(prometheus, inFolder(file)) ?? '', 'utf8')) as [
      { targets: string[] },
    ];
    const [port = ''] = collector.ports.map((text) => text.split(':').at(-1));
    expect(targets).toEqual([`collector:${port}`]);
    // The Host header that Prometheus sends is one that the guard knows.
    const command = collector.command ?? [];
    expect(command[command.indexOf('--allow-host') + 1]).toBe('collector');
    expect((await sluice(['serve', '--help'])).stdout).toContain(`default: ${port}`);
  }
});

test('Grafana finds Prometheus and the dashboard', () => {
  const folder = '/etc/grafana/provisioning';
  expect(pathHere(grafana, folder)).toBe(join(MONITORING, 'grafana', 'provisioning'));
  const { datasources } = yaml('grafana', 'provisioning', 'datasources', 'prometheus.yml') as {
    datasources: { url: string; type: string; isDefault: boolean; jsonData: { timeInterval: string } }[];
  };
  const [port = ''] = prometheus.ports.map((text) => text.split(':').at(-1));
  expect(datasources).toMatchObject([{ type: 'prometheus', url: `http://prometheus:${port}`, isDefault: true }]);
  const { global } = yaml('prometheus', 'prometheus.yml') as { global: { scrape_interval: string } };
  expect(datasources[0]?.jsonData.timeInterval).toBe(global.scrape_interval);

  const { providers } = yaml('grafana', 'provisioning', 'dashboards', 'sluice.yml') as {
    providers: { options: { path: string } }[];
  };
  const home = grafana.environment?.['GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH'] ?? '';
  expect(providers.map(({ options }) => options.path)).toEqual([dirname(home)]);
  const dashboard = JSON.parse(readFileSync(pathHere(grafana, home) ?? '', 'utf8')) as { title: string };
  expect(dashboard.title).toMatch(/Sluice/);
});

test('the image is built from what is there and is not left out', () => {
  const { build } = collector;
  expect(join(MONITORING, build?.context ?? '', build?.dockerfile ?? '')).toBe(join(MONITORING, 'Dockerfile'));
  const ignored = readFileSync(join(ROOT, '.dockerignore'), 'utf8').split('\n');
  const copied = [...dockerfile.matchAll(/^COPY --from=build \/app\/(\S+)/gm)].map(([, path = '']) => path);
  expect(copied).toEqual(['package.json', 'node_modules', 'dist', 'monitoring/serve.sh']);
  const sources = [
    'package.json',
    'package-lock.json',
    '.npmrc',
    'tsconfig.json',
    'tsconfig.build.json',
    'src',
    'monitoring/serve.sh',
  ];
  for (const path of sources) {
    expect(existsSync(join(ROOT, path)), path).toBe(true);
    expect(ignored).not.toContain(path);
    expect(ignored).not.toContain(basename(path));
  }
  expect(dockerfile).toMatch(/^USER node$/m);
});

/** What is in an instruction of the Dockerfile that is a list. */
function listOf(instruction: RegExp): string[] {
  return JSON.parse(instruction.exec(dockerfile)?.[1] ?? '[]') as string[];
}

test('the entry point starts a collector that wants the token from the file, and the health check tells how it is', async () => {
  const folder = tempDir();
  const [shell = '', script = ''] = listOf(/^ENTRYPOINT (.*)$/m);
  expect([shell, script]).toEqual(['/bin/sh', '/app/serve.sh']);
  copyFileSync(join(MONITORING, 'serve.sh'), join(folder, 'serve.sh'));
  symlinkSync(join(ROOT, 'dist'), join(folder, 'dist'));
  // With the newline that openssl ends it with.
  writeFileSync(join(folder, 'token'), 'correct-horse-battery\n');
  // The flags as they are, but for the address.
  const flags = (collector.command ?? []).map((flag) => (flag === '0.0.0.0' ? '127.0.0.1' : flag));
  const [file = '', ...rest] = flags;
  const { url, child, finished } = await listening(
    start([join(folder, basename(file)), ...rest, '--port', '0'], {
      through: [shell, join(folder, 'serve.sh')],
      env: { SLUICE_TOKEN_FILE: join(folder, 'token') },
    }),
  );
  expect((await ask(`${url}/metrics`)).status).toBe(401);
  const headers = { authorization: 'Bearer correct-horse-battery' };
  const { port } = new URL(url);
  expect((await ask(`${url}/metrics`, { headers: { ...headers, host: `collector:${port}` } })).status).toBe(200);
  expect((await ask(`${url}/metrics`, { headers: { ...headers, host: `elsewhere:${port}` } })).status).toBe(403);

  const [command = '', flag = '', code = ''] = listOf(/^HEALTHCHECK .* CMD (.*)$/m);
  expect([command, flag]).toEqual(['node', '-e']);
  const check = (at: string) =>
    run(process.execPath, [flag, code.replace('127.0.0.1:9464', at)]).then(
      () => 0,
      () => 1,
    );
  expect(code).toContain('http://127.0.0.1:9464/healthz');
  expect(await check(new URL(url).host)).toBe(0);
  child.kill('SIGTERM');
  expect((await finished).code).toBe(0);
  expect(await check(new URL(url).host)).toBe(1);
});
