import { type MessagePort, workerData } from 'node:worker_threads';
import { serveWriter } from './serve-writer.ts';

// SQLite says no to a write by throwing. Collecting a stack trace is most of what that costs, and no trace leaves this
// thread: see `toWire`.
Error.stackTraceLimit = 0;

const port = workerData as MessagePort;
// It was given up on, and has done what it was asked for: its next checkpoint is for others.
port.on('close', () => process.exit());
serveWriter(port);
