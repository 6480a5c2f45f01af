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
export function wrappedWriter(
  program: string,
  { resourceLimits, folder = tempDir() }: { resourceLimits?: ResourceLimits; folder?: string } = {},
): NonNullable<Machine['spawn']> {
  const file = join(folder, 'wrapped-writer.mjs');
  const sqlite = new URL('../../node_modules/better-sqlite3/lib/index.js', import.meta.url).href;
  const entry = new URL('../../dist/store/sqlite/writer/writer-thread.js', import.meta.url).href;
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
    const isWriter = asked.pathname.endsWith('writer-thread.js');
    return new Worker(isWriter ? pathToFileURL(file) : asked, {
      workerData: port,
      transferList: [port],
      execArgv: [],
      ...(isWriter && resourceLimits !== undefined ? { resourceLimits } : {}),
    });
  };
}
