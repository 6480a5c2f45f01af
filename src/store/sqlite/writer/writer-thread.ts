import { constants, getPriority, setPriority } from 'node:os';
import { type MessagePort, workerData } from 'node:worker_threads';
import { serveWriter } from './serve-writer.ts';

/** The host gets ten times as much of a core that both want. */
const NICENESS = 10;

// SQLite says no to a write by throwing. Collecting a stack trace is most of what that costs, and no trace leaves this
// thread: see `toWire`.
Error.stackTraceLimit = 0;

yieldToTheHost();

const port = workerData as MessagePort;
// It was given up on, and has done what it was asked for: its next checkpoint is for others.
port.on('close', () => process.exit());
serveWriter(port);

/**
 * Where there is more work than cores, the event loop of the host goes first. Who waits for this thread has nothing else to do, and
 * leaves it the core. On Linux a thread has a priority of its own; elsewhere this would be that of the whole process.
 */
function yieldToTheHost(): void {
  if (process.platform !== 'linux') return;
  try {
    setPriority(Math.min(getPriority() + NICENESS, constants.priority.PRIORITY_LOW));
  } catch {
    // A sandbox may forbid it. It is a matter of milliseconds.
  }
}
