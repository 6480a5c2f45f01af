/** The loops of raw-sqlite.ts in a worker, which is sent what a turn of the host writes. */
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Driver, Store } from '../driver.ts';
import type { KeyValueWorkload, RowWorkload } from '../workload.ts';
import { countIn, KEYS, type Loop, type RawTable, rawDriver, rowsTable, WAL_PAGES } from './raw-sqlite.ts';

/** What the thread in raw-thread.ts is started with. */
export interface RawThreadData {
  readonly path: string;
  readonly table: RawTable;
  /** How many values each write has. */
  readonly width: number;
  readonly loop: Loop;
}

/** Writes, one value after the other; or what to do when the writes before it are done. Each is answered. */
export type RawThreadMessage = unknown[] | 'commit' | 'close';

/** Turns that are sent and not written yet, before the host waits: memory is to stay bounded, as with any other store. */
const TURNS_AHEAD = 200;

async function startWorker(data: RawThreadData, valuesOf: (i: number) => readonly unknown[]): Promise<Store> {
  const worker = new Worker(new URL('./raw-thread.js', import.meta.url), { workerData: data });
  await once(worker, 'message');
  let ahead = 0;
  worker.on('message', () => {
    ahead--;
  });
  const send = (message: RawThreadMessage) => {
    ahead++;
    worker.postMessage(message);
  };
  const untilAhead = async (most: number) => {
    while (ahead > most) await once(worker, 'message');
  };
  return {
    write(from, to) {
      const values: unknown[] = [];
      for (let i = from; i < to; i++) values.push(...valuesOf(i));
      send(values);
      return ahead > TURNS_AHEAD ? untilAhead(TURNS_AHEAD / 2) : undefined;
    },
    acknowledged() {
      send('commit');
      return untilAhead(0);
    },
    count: () => countIn(data.path, data.table.name),
    async close() {
      send('close');
      await untilAhead(0);
      await worker.terminate();
    },
  };
}

export function rawWorker(perTransaction: number, walPages: number = WAL_PAGES): Driver<KeyValueWorkload> {
  const loop = { perTransaction, walPages };
  return {
    ...rawDriver(loop, ', worker'),
    open: (folder, { entryOf }) =>
      startWorker({ path: join(folder, 'raw.db'), table: KEYS, width: 2, loop }, (i) => {
        const [key, value] = entryOf(i);
        return [key, JSON.stringify(value)];
      }),
  };
}

export function rawRowsWorker<R extends object>(
  perTransaction: number,
  walPages: number = WAL_PAGES,
): Driver<RowWorkload<R>> {
  const loop = { perTransaction, walPages };
  return {
    ...rawDriver(loop, ', worker'),
    open: (folder, { columns, rowOf, valuesOf }) =>
      startWorker(
        {
          path: join(folder, 'raw.db'),
          table: rowsTable(columns),
          width: Object.keys(columns).length,
          loop,
        },
        (i) => valuesOf(rowOf(i)),
      ),
  };
}
