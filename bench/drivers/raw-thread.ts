import { parentPort, workerData } from 'node:worker_threads';
import { RawConnection } from './raw-sqlite.ts';
import type { RawThreadData, RawThreadMessage } from './raw-worker.ts';

const { path, table, width, loop } = workerData as RawThreadData;
const raw = new RawConnection(path, table, loop);

parentPort?.on('message', (message: RawThreadMessage) => {
  if (typeof message === 'string') {
    raw.commit();
    if (message === 'close') raw.db.close();
  } else {
    for (let i = 0; i < message.length; i += width) {
      raw.next();
      raw.insert.run(message.slice(i, i + width));
    }
  }
  parentPort?.postMessage('done');
});

parentPort?.postMessage('ready');
