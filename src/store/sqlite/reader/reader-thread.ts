import { type MessagePort, workerData } from 'node:worker_threads';
import { ValueCipher } from '../../../base/encryption/index.ts';
import { SluiceError } from '../../../base/errors.ts';
import type { SyncScan } from '../../store.ts';
import {
  getDeadLetter,
  listDeadLetters,
  listPortable,
  listSummaries,
  summarize,
} from '../dead-letters/dead-letter-reads.ts';
import { serve } from '../rpc.ts';
import { type SqliteCursor, SqliteReader } from './reader.ts';
import type { ReaderProtocol } from './reader-protocol.ts';
import { isCalledOff, type StopWord } from './stop-word.ts';

/** A reader thread serves nobody else while it waits for a lock, but in WAL mode it hardly ever has to. */
const BUSY_TIMEOUT_MS = 1_000;

const port = workerData as MessagePort;
const scans = new Map<number, SyncScan>();
let scanCount = 0;
const cursors = new Map<number, SqliteCursor>();
let cursorCount = 0;
let reader: SqliteReader;
let stop: StopWord;
/** For dead letters alone: values are decrypted by whoever asks for them. */
let cipher: ValueCipher | undefined;

function scanOf(id: number): SyncScan {
  const scan = scans.get(id);
  if (scan === undefined) throw new SluiceError('SLUICE_CLOSED', 'the scan was closed');
  return scan;
}

const isStopped = (id: number) => () => isCalledOff(stop, id);

serve<ReaderProtocol>(port, {
  start({ path, database, stop: shared }) {
    stop = shared;
    reader = new SqliteReader(path, database, BUSY_TIMEOUT_MS);
    return null;
  },
  unlock(secrets) {
    cipher = new ValueCipher(secrets);
    return null;
  },
  getMany: (requests) => requests.map(({ table, keys, liveAt }) => reader.getMany(table, keys, liveAt)),
  count: ({ table, overlay }) => reader.count(table, overlay),
  query: ({ id, sql, parameters, maxRows }) => reader.query(sql, parameters, isStopped(id), maxRows),
  queryAll: ({ id, statements }) => reader.queryAll(statements, isStopped(id)),
  openCursor(statement) {
    cursors.set(++cursorCount, reader.cursor(statement));
    return cursorCount;
  },
  nextOfCursor({ id, cursor, count }) {
    const open = cursors.get(cursor);
    if (open === undefined) throw new SluiceError('SLUICE_CLOSED', 'the query was closed');
    return open.next(count, isStopped(id));
  },
  closeCursor(cursor) {
    cursors.get(cursor)?.close();
    cursors.delete(cursor);
    return null;
  },
  openScan({ table, range }) {
    const scan = reader.scan(table, range);
    scans.set(++scanCount, scan);
    return { scan: scanCount, appliedSeq: scan.appliedSeq };
  },
  nextOfScan: ({ scan, count }) => scanOf(scan).next(count),
  closeScan({ scan }) {
    scans.get(scan)?.close();
    scans.delete(scan);
    return null;
  },
  deadLetters: (range) => reader.ask((db) => listDeadLetters(db, range, cipher)),
  deadLetterSummaries: (range) => reader.ask((db) => listSummaries(db, range)),
  portableDeadLetters: (range) => reader.ask((db) => listPortable(db, range)),
  deadLetter: (id) => reader.ask((db) => getDeadLetter(db, id, cipher)),
  deadLetterGroups: (filter) => reader.ask((db) => summarize(db, filter)),
  close() {
    reader.close();
    return null;
  },
});
