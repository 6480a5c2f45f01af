import { parentPort, workerData } from 'node:worker_threads';
import { openSqlite, Transactions } from './raw-sqlite.ts';

const { path, perTransaction, upsert } = workerData as { path: string; perTransaction: number; upsert: string };
const db = openSqlite(path, 'CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT)');
const statement = db.prepare(upsert);
const transactions = new Transactions(db, perTransaction);

parentPort?.on('message', (message: 'end' | 'close' | string[]) => {
  if (typeof message === 'string') {
    transactions.end();
    if (message === 'close') db.close();
    parentPort?.postMessage('done');
    return;
  }
  for (let i = 0; i < message.length; i += 2) transactions.run(() => statement.run(message[i], message[i + 1]));
});

parentPort?.postMessage('ready');
