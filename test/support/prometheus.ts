import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { eventually } from './eventually.ts';

/** Why there is no Prometheus, if so. It is installed where the package manager of the system can. */
export function whyNoPrometheus(): string | undefined {
  if (isThere()) return undefined;
  if (process.platform !== 'linux') return `apt-get is Linux's, this is ${process.platform}`;
  const sudo = process.getuid?.() === 0 ? [] : ['sudo', '-n'];
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const apt = (...args: string[]) => {
    const [command = '', ...rest] = [...sudo, 'apt-get', ...args];
    return spawnSync(command, rest, { env, encoding: 'utf8', timeout: 300_000 });
  };
  if (apt('install', '-y', '--no-install-recommends', 'prometheus').status !== 0) apt('update');
  const { status, stderr, error } = apt('install', '-y', '--no-install-recommends', 'prometheus');
  if (status === 0 && isThere()) return undefined;
  return `apt-get install -y prometheus does not work here: ${error?.message ?? stderr}`;
}

const isThere = (): boolean => ['prometheus', 'promtool'].every((name) => spawnSync(name, ['--version']).status === 0);

export interface ToolResult {
  readonly status: number | null;
  readonly output: string;
}

export function promtool(
  args: readonly string[],
  { cwd, input = '' }: { cwd?: string; input?: string } = {},
): ToolResult {
  const { status, stdout, stderr } = spawnSync('promtool', args, { cwd, input, encoding: 'utf8', timeout: 60_000 });
  return { status, output: `${stdout}${stderr}` };
}

export type Labels = Readonly<Record<string, string>>;

/** A series of an answer: `value` of a query at one moment, `values` of one over a range. */
export interface Series {
  readonly metric: Labels;
  readonly value: readonly [at: number, value: string];
  readonly values: readonly (readonly [at: number, value: string])[];
}

export interface Alert {
  readonly labels: Labels;
  readonly annotations: Labels;
  readonly state: 'pending' | 'firing';
}

export interface Target {
  readonly labels: Labels;
  readonly health: string;
  readonly lastError: string;
}

/** A Prometheus of the test's own. */
export class Prometheus {
  readonly #url: string;
  readonly #process: ChildProcess;
  #output = '';
  #ended = false;

  private constructor(url: string, process: ChildProcess) {
    this.#url = url;
    this.#process = process;
    for (const stream of [process.stdout, process.stderr]) {
      stream?.on('data', (text: Buffer) => {
        this.#output += text.toString();
      });
    }
    process.once('close', () => {
      this.#ended = true;
    });
  }

  /** Runs it on a configuration, and waits until it answers. Prometheus takes no port 0, so another may take ours before it. */
  static async start(config: string, storage: string): Promise<Prometheus> {
    for (let attempt = 1; ; attempt++) {
      const address = `127.0.0.1:${await freePort()}`;
      const args = [
        `--config.file=${config}`,
        `--storage.tsdb.path=${storage}`,
        `--web.listen-address=${address}`,
        '--log.level=warn',
      ];
      const started = new Prometheus(`http://${address}`, spawn('prometheus', args, { stdio: 'pipe' }));
      try {
        await eventually(() => started.#isReady(), 'Prometheus answers', 30_000);
        return started;
      } catch (error) {
        await started.stop();
        if (attempt === 3) throw new Error(started.output, { cause: error });
      }
    }
  }

  /** What it has said: warnings and errors. */
  get output(): string {
    return this.#output;
  }

  async stop(): Promise<void> {
    if (this.#ended) return;
    const closed = new Promise((resolve) => this.#process.once('close', resolve));
    this.#process.kill('SIGKILL');
    await closed;
  }

  async query(query: string): Promise<Series[]> {
    return (await this.#ask<{ result: Series[] }>('query', { query })).result;
  }

  async queryRange(query: string, range: { start: number; end: number; step: number }): Promise<Series[]> {
    const { start, end, step } = range;
    return (
      await this.#ask<{ result: Series[] }>('query_range', { query, start: `${start}`, end: `${end}`, step: `${step}` })
    ).result;
  }

  async alerts(): Promise<Alert[]> {
    return (await this.#ask<{ alerts: Alert[] }>('alerts')).alerts;
  }

  async targets(): Promise<Target[]> {
    return (await this.#ask<{ activeTargets: Target[] }>('targets')).activeTargets;
  }

  /** Rules that could not be evaluated. */
  async failedRules(): Promise<string[]> {
    interface Rule {
      readonly name: string;
      readonly health: string;
      readonly lastError?: string;
    }
    const { groups } = await this.#ask<{ groups: { rules: Rule[] }[] }>('rules');
    const rules = groups.flatMap((group) => group.rules);
    if (rules.length === 0) throw new Error('Prometheus has read no rules');
    return rules.filter(({ health }) => health !== 'ok').map(({ name, lastError }) => `${name}: ${lastError}`);
  }

  async #isReady(): Promise<boolean> {
    if (this.#ended) throw new Error(`Prometheus has ended: ${this.#output}`);
    return fetch(`${this.#url}/-/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
  }

  async #ask<T>(path: string, parameters: Readonly<Record<string, string>> = {}): Promise<T> {
    const response = await fetch(`${this.#url}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const answer = (await response.json()) as { status: string; error?: string; data: T };
    if (answer.status !== 'success') throw new Error(`${answer.error}: ${parameters['query'] ?? path}`);
    return answer.data;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
      .once('error', reject)
      .listen(0, '127.0.0.1', () => {
        const { port } = server.address() as AddressInfo;
        server.close(() => resolve(port));
      });
  });
}
