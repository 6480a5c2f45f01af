import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type ResourceLimits, Worker } from 'node:worker_threads';
import type { Machine } from '../../dist/db/open.js';
import { tempDir } from './temp-dir.ts';

/**
 * Starts the writer thread with a text run in it first, for what cannot be done to it from outside. In scope: `Sqlite`
 * (better-sqlite3), `port` (the thread's own), `fs` and `threads`.
 */
export function wrappedWriter(program: string, options: WrappedOptions = {}): NonNullable<Machine['spawn']> {
  return wrapped('writer', program, options);
}

/** The same with the reader threads. */
export function wrappedReaders(program: string, options: WrappedOptions = {}): NonNullable<Machine['spawn']> {
  return wrapped('reader', program, options);
}

interface WrappedOptions {
  readonly resourceLimits?: ResourceLimits;
  /** Where it may put a file; a folder of the test's own, if there is a test. */
  readonly folder?: string;
}

function wrapped(
  kind: 'writer' | 'reader',
  program: string,
  { resourceLimits, folder = tempDir() }: WrappedOptions,
): NonNullable<Machine['spawn']> {
  const file = join(folder, `wrapped-${kind}.mjs`);
  const sqlite = new URL('../../node_modules/better-sqlite3/lib/index.js', import.meta.url).href;
  const entry = new URL(`../../dist/store/sqlite/${kind}/${kind}-thread.js`, import.meta.url).href;
  writeFileSync(
    file,
    `import * as fs from 'node:fs';
     import * as threads from 'node:worker_threads';
     import Sqlite from ${JSON.stringify(sqlite)};
     const port = threads.workerData;
     ${program}
     await import(${JSON.stringify(entry)});`,
  );
  return (asked, port) => {
    const isWrapped = asked.pathname.endsWith(`${kind}-thread.js`);
    return new Worker(isWrapped ? pathToFileURL(file) : asked, {
      workerData: port,
      transferList: [port],
      execArgv: [],
      ...(isWrapped && resourceLimits !== undefined ? { resourceLimits } : {}),
    });
  };
}
