import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

const MAIN = join(import.meta.dirname, '..', '..', 'dist', 'cli', 'main.js');

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
  stdout(): string;
}

type Env = Record<string, string>;

/** Starts `sluice`, and makes sure that it does not outlive the test. */
export function start(
  args: readonly string[],
  { env = {}, cwd, through = [process.execPath, MAIN] }: { env?: Env; cwd?: string; through?: readonly string[] } = {},
): Running {
  const { SLUICE_TOKEN: _, ...inherited } = process.env;
  const [program = '', ...before] = through;
  const child = spawn(program, [...before, ...args], { env: { ...inherited, ...env }, cwd, stdio: 'pipe' });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const finished = new Promise<Finished>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return { child, finished, stdout: () => stdout };
}

/** Runs `sluice` to its end. */
export function sluice(
  args: readonly string[],
  options: { env?: Env; cwd?: string; input?: string } = {},
): Promise<Finished> {
  const { child, finished } = start(args, options);
  child.stdin?.end(options.input ?? '');
  return finished;
}

/** Starts `sluice serve` on a free port, and waits until it says where. */
export async function serve(args: readonly string[], env: Env = {}): Promise<Running & { url: string }> {
  return listening(start(['serve', '--port', '0', ...args], { env }));
}

/** Waits until what is `sluice serve` says where it listens. */
export async function listening(running: Running): Promise<Running & { url: string }> {
  const url = await new Promise<string>((resolve, reject) => {
    running.child.stdout?.on('data', () => {
      const found = /listening on (\S+)/.exec(running.stdout())?.[1];
      // The banner is one write; its last line says that all of it is here.
      if (found !== undefined && running.stdout().includes('Stop with')) resolve(found);
    });
    running.finished.then(({ stderr }) => reject(new Error(`it did not start: ${stderr}`)), reject);
  });
  return { ...running, url };
}
