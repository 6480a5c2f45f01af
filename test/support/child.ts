import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { tempDir } from './temp-dir.ts';

const ENTRY = new URL('../../dist/index.js', import.meta.url).href;

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
  readonly errors: string;
}

export interface ChildOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Run by the shell that the process comes from, `ulimit -n 50` for instance. */
  readonly limits?: string;
  /** A program that the process is started through, with its arguments. */
  readonly wrapper?: readonly string[];
}

/** A Node.js process that runs a text as a module, with `open`, `SluiceError` and `closeOnSignals` in scope. */
export class Child {
  readonly process: ChildProcess;
  readonly ended: Promise<Ended>;
  output = '';
  errors = '';

  constructor(program: string, args: readonly string[] = [], { env, limits = ':', wrapper = [] }: ChildOptions = {}) {
    const file = join(tempDir(), 'program.mjs');
    writeFileSync(file, `import { closeOnSignals, open, SluiceError } from ${JSON.stringify(ENTRY)};\n${program}\n`);
    const command = [...wrapper, process.execPath, '--unhandled-rejections=strict', file, ...args];
    this.process = spawn('/bin/sh', ['-c', `${limits} && exec "$0" "$@"`, ...command], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    this.process.stdout?.on('data', (text: Buffer) => {
      this.output += text.toString();
    });
    this.process.stderr?.on('data', (text: Buffer) => {
      this.errors += text.toString();
    });
    this.ended = new Promise((resolve) => {
      this.process.on('close', (code, signal) => resolve({ code, signal, output: this.output, errors: this.errors }));
    });
    onTestFinished(() => {
      this.process.kill('SIGKILL');
    });
  }

  /** Waits until the child has said something. */
  async says(text: string, limitMs = 20_000): Promise<void> {
    const deadline = performance.now() + limitMs;
    while (!this.output.includes(text)) {
      if (performance.now() > deadline || this.process.exitCode !== null) {
        throw new Error(`the child did not say ${text}: ${this.output}${this.errors}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Waits for the end; kills the child if it does not come. */
  async end(limitMs = 20_000): Promise<Ended> {
    const timer = setTimeout(() => this.process.kill('SIGKILL'), limitMs);
    try {
      return await this.ended;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Holds the write lock of a database from another process; resolves to a function that lets it go. */
export async function lockFromOutside(file: string): Promise<() => Promise<void>> {
  const sqlite = new URL('../../node_modules/better-sqlite3/lib/index.js', import.meta.url).href;
  const child = new Child(
    `import Sqlite from ${JSON.stringify(sqlite)};
     const db = new Sqlite(process.argv[2], { timeout: 5000 });
     db.exec('BEGIN IMMEDIATE');
     console.log('locked');
     process.on('SIGTERM', () => { db.exec('ROLLBACK'); db.close(); process.exit(0); });
     setInterval(() => {}, 1000);`,
    [file],
  );
  await child.says('locked');
  return async () => {
    child.process.kill('SIGTERM');
    await child.end();
  };
}
